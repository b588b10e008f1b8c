//! The service with guests that a test plays: what they tell and leave out.

use tokio::sync::mpsc::{UnboundedReceiver, channel, error::TryRecvError};

use super::process::Stdio;
use super::*;
use crate::publish::Waiting;

/// A service without a pod, and what it tells containerd.
fn service() -> (Service, UnboundedReceiver<Waiting>) {
    let (events, told) = Events::queued();
    let exit = Arc::new(ExitSignal::default());
    let service = Service::new("test".to_owned(), events, exit, PathBuf::new());
    (service, told)
}

/// Adds a container whose first process is not started yet.
fn add(service: &Service, id: &str) -> Arc<Container> {
    let first = Arc::new(Process::new(id, "", 1, Stdio::default(), Vec::new()));
    let container = Arc::new(Container::new(
        id.to_owned(),
        PathBuf::from("/nowhere"),
        1,
        &oci_spec::runtime::Spec::default(),
        Default::default(),
        first,
    ));
    let mut containers = service.shared.containers();
    containers.insert(id.to_owned(), Arc::clone(&container));
    container
}

/// The topics told so far.
fn topics(told: &mut UnboundedReceiver<Waiting>) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match told.try_recv() {
            Ok(event) => all.push(event.topic),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return all,
        }
    }
}

#[tokio::test]
async fn a_guest_cannot_flood_containerd_nor_tell_of_others_containers() {
    let (service, mut told) = service();
    add(&service, "a");
    let (pod, events) = channel(16);
    let follow = tokio::spawn(service.shared().follow(events));
    for container in ["a", "b", ""].iter().cycle().take(3000) {
        let container = (*container).to_owned();
        pod.send(PodEvent::OutOfMemory { container }).await.unwrap();
    }
    for _ in 0..1000 {
        let (container, exec) = ("a".to_owned(), String::new());
        let exit = PodEvent::Exit {
            container,
            exec,
            code: 0,
        };
        pod.send(exit).await.unwrap();
    }
    drop(pod);
    follow.await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(topics(&mut told), ["/tasks/oom", "/tasks/exit"]);
}
