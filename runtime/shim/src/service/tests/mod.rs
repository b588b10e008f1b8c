//! The service with guests that a test plays: what they tell and leave out.

mod guest;

use std::collections::HashMap;
use std::time::Instant;

use containerd_shim::TtrpcContext;
use containerd_shim::api;
use containerd_shim::protos::shim_async::Task;
use containerd_shim::protos::ttrpc::{Code, Error, MessageHeader};
use lab::scratch::Scratch;
use ringside_pod::played::{self, Played};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::time::{sleep, timeout};

use self::guest::Guest;
use tokio::sync::mpsc::{UnboundedReceiver, channel, error::TryRecvError};

use super::process::Stdio;
use super::*;
use crate::publish::Waiting;

/// How long a guest has here for the end of what was killed.
const PATIENCE: Duration = Duration::from_millis(300);

/// What takes longer hangs.
const HANGS: Duration = Duration::from_secs(30);

/// A service without a pod, and what it tells containerd.
fn service() -> (Service, UnboundedReceiver<Waiting>) {
    let (events, told) = Events::queued();
    let exit = Arc::new(ExitSignal::default());
    let service = Service::new("test".to_owned(), events, exit, PathBuf::new());
    let mut shared = Arc::into_inner(service.shared).unwrap();
    shared.patience = PATIENCE;
    let shared = Arc::new(shared);
    (Service { shared }, told)
}

/// A service with a pod.
struct Stage {
    service: Service,
    told: UnboundedReceiver<Waiting>,
    pod: Arc<Pod>,
    _server: played::Server,
    _scratch: Scratch,
}

impl Stage {
    async fn new(name: &str, guest: &Arc<Guest>) -> Self {
        let scratch = Scratch::new(name).unwrap();
        let guest: Arc<Guest> = Arc::clone(guest);
        let played = played::pod(scratch.path(), guest).await.unwrap();
        let Played {
            pod,
            events,
            server,
        } = played;
        let (service, told) = service();
        *service.shared.pod.lock().await = PodState::Runs(Arc::clone(&pod));
        tokio::spawn(service.shared().follow(events));
        Self {
            service,
            told,
            pod,
            _server: server,
            _scratch: scratch,
        }
    }

    /// A container that runs.
    fn run(&self, id: &str) -> Arc<Container> {
        let container = add(&self.service, id);
        container.process("").unwrap().has_started();
        container
    }

    async fn kill(&self, id: &str, exec: &str) -> Result<(), Error> {
        let request = api::KillRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            signal: 9,
            ..api::KillRequest::default()
        };
        self.service.kill(&context(), request).await.map(drop)
    }

    async fn exec(&self, stdout: &str) {
        let request = api::ExecProcessRequest {
            id: "a".to_owned(),
            exec_id: "e".to_owned(),
            stdout: stdout.to_owned(),
            ..api::ExecProcessRequest::default()
        };
        self.service.exec(&context(), request).await.unwrap();
    }

    async fn start(&self) -> Result<(), Error> {
        let request = api::StartRequest {
            id: "a".to_owned(),
            exec_id: "e".to_owned(),
            ..api::StartRequest::default()
        };
        self.service.start(&context(), request).await.map(drop)
    }

    async fn delete(&self, id: &str, exec: &str) -> Result<u32, Error> {
        let request = api::DeleteRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            ..api::DeleteRequest::default()
        };
        let deleted = self.service.delete(&context(), request).await;
        deleted.map(|answer| answer.exit_status)
    }

    /// The exit code of a container's first process.
    async fn ended(&self, container: &Container) -> u32 {
        let process = container.process("").unwrap();
        timeout(HANGS, process.ended()).await.unwrap().code
    }
}

fn context() -> TtrpcContext {
    TtrpcContext {
        mh: MessageHeader::default(),
        metadata: HashMap::new(),
        timeout_nano: 0,
    }
}

fn code(error: &Error) -> Option<Code> {
    match error {
        Error::RpcStatus(status) => Some(status.code()),
        _ => None,
    }
}

/// Adds a container of the pod `a`, whose first process is not started yet.
fn add(service: &Service, id: &str) -> Arc<Container> {
    let sandbox = ("io.kubernetes.cri.sandbox-id".to_owned(), "a".to_owned());
    let mut spec = oci_spec::runtime::Spec::default();
    spec.set_annotations(Some(HashMap::from([sandbox])));
    let first = Arc::new(Process::new(id, "", 1, Stdio::default(), Vec::new()));
    let container = Arc::new(Container::new(
        id.to_owned(),
        PathBuf::from("/nowhere"),
        1,
        &spec,
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

#[tokio::test]
async fn a_guest_that_hides_the_end_of_its_only_container_is_ended() {
    let guest = Guest::silent();
    let stage = Stage::new("shim-hides-one", &guest).await;
    let container = stage.run("a");
    stage.kill("a", "").await.unwrap();
    assert_eq!(stage.ended(&container).await, 137);
    assert!(stage.service.shared.pod().await.is_err(), "it still runs");
    assert!(!stage.pod.directory().path().exists());
    let deleted = timeout(HANGS, stage.delete("a", "")).await.unwrap();
    assert_eq!(deleted.unwrap(), 137);
    assert!(stage.service.shared.containers().is_empty());
}

#[tokio::test]
async fn a_guest_that_hides_the_end_of_one_of_several_loses_that_one() {
    let guest = Guest::silent();
    let mut stage = Stage::new("shim-hides-two", &guest).await;
    let (first, other) = (stage.run("a"), stage.run("b"));
    stage.kill("b", "").await.unwrap();
    assert_eq!(stage.ended(&other).await, 137);
    let deleted = timeout(HANGS, stage.delete("b", "")).await.unwrap();
    assert_eq!(deleted.unwrap(), 137);
    assert!(stage.service.shared.pod().await.is_ok(), "the pod is gone");
    assert!(first.process("").unwrap().exited().is_err());
    assert!(!stage.service.shared.containers().contains_key("b"));
    assert_eq!(topics(&mut stage.told), ["/tasks/exit", "/tasks/delete"]);
    stage.pod.kill().await;
}

#[tokio::test]
async fn a_guest_that_hides_the_end_of_an_exec_loses_that_one() {
    let guest = Guest::silent();
    let stage = Stage::new("shim-hides-exec", &guest).await;
    let container = stage.run("a");
    stage.exec("").await;
    stage.start().await.unwrap();
    stage.kill("a", "e").await.unwrap();
    let process = container.process("e").unwrap();
    let exited = timeout(HANGS, process.ended()).await.unwrap();
    assert_eq!(exited.code, 137);
    let deleted = timeout(HANGS, stage.delete("a", "e")).await.unwrap();
    assert_eq!(deleted.unwrap(), 137);
    assert!(stage.service.shared.pod().await.is_ok(), "the pod is gone");
    assert!(container.process("").unwrap().exited().is_err());
    stage.pod.kill().await;
}

#[tokio::test]
async fn an_honest_guest_has_its_time() {
    let guest = Guest::honest();
    let stage = Stage::new("shim-honest", &guest).await;
    let (container, _other) = (stage.run("a"), stage.run("b"));
    guest.runs("a", "");
    stage.kill("a", "").await.unwrap();
    assert_eq!(stage.ended(&container).await, 137);
    sleep(PATIENCE * 2).await;
    assert!(stage.service.shared.pod().await.is_ok(), "the pod is gone");
    stage.pod.kill().await;
}

#[tokio::test]
async fn a_guest_that_does_not_let_go_is_asked_for_a_while() {
    let guest = Guest::honest();
    guest.denies_what_it_does();
    let stage = Stage::new("shim-keeps", &guest).await;
    let container = stage.run("a");
    guest.runs("a", "");
    stage.kill("a", "").await.unwrap();
    stage.ended(&container).await;
    sleep(PATIENCE * 2).await;
    let refused = stage.delete("a", "").await.unwrap_err();
    assert_eq!(code(&refused), Some(Code::INTERNAL), "it ended long ago");
    sleep(PATIENCE * 2).await;
    stage.delete("a", "").await.unwrap();
    assert!(stage.service.shared.containers().is_empty());
    stage.pod.kill().await;
}

#[tokio::test]
async fn a_slow_guest_writes_back_before_its_disks_go() {
    let slow = overdue::LATE + PATIENCE;
    let guest = Guest::honest();
    guest.is_slow(slow);
    let stage = Stage::new("shim-slow", &guest).await;
    let container = stage.run("a");
    guest.runs("a", "");
    stage.kill("a", "").await.unwrap();
    stage.ended(&container).await;
    sleep(PATIENCE * 2).await;
    let start = Instant::now();
    stage.delete("a", "").await.unwrap();
    assert!(start.elapsed() >= slow, "it was not waited for");
    stage.pod.kill().await;
}

#[tokio::test]
async fn an_exec_that_containerd_did_not_wait_for_is_ended_in_the_guest() {
    let guest = Guest::honest();
    guest.is_slow(Duration::from_millis(200));
    let stage = Stage::new("shim-late-exec", &guest).await;
    let container = stage.run("a");
    stage.exec("").await;
    let given_up = timeout(Duration::from_millis(50), stage.start()).await;
    assert!(given_up.is_err());
    let gone = async {
        while container.process("e").is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(HANGS, gone).await.unwrap();
    assert_eq!(guest.running(), Vec::<String>::new());
    assert!(guest.was_asked("delete_process a e"));
    stage.pod.kill().await;
}

#[tokio::test]
async fn an_exec_whose_start_failed_here_and_not_there_is_ended_with_its_deletion() {
    let guest = Guest::honest();
    guest.denies_what_it_does();
    let stage = Stage::new("shim-failed-exec", &guest).await;
    let container = stage.run("a");
    stage.exec("").await;
    stage.start().await.unwrap_err();
    assert_eq!(guest.running(), ["a e"]);
    let deleted = timeout(HANGS, stage.delete("a", "e")).await.unwrap();
    deleted.unwrap();
    assert_eq!(guest.running(), Vec::<String>::new());
    assert!(container.process("e").is_err());
    stage.pod.kill().await;
}

#[tokio::test]
async fn a_deletion_waits_for_the_start() {
    let guest = Guest::honest();
    guest.is_slow(Duration::from_millis(200));
    let stage = Stage::new("shim-delete-start", &guest).await;
    stage.run("a");
    stage.exec("").await;
    let deletion = async {
        sleep(Duration::from_millis(50)).await;
        stage.delete("a", "e").await
    };
    let (started, deleted) = tokio::join!(stage.start(), deletion);
    started.unwrap();
    assert_eq!(code(&deleted.unwrap_err()), Some(Code::FAILED_PRECONDITION));
    stage.pod.kill().await;
}

#[tokio::test]
async fn nobody_waits_for_the_output_of_an_exec_that_was_refused() {
    let guest = Guest::honest();
    guest.refuses();
    let stage = Stage::new("shim-refused-exec", &guest).await;
    stage.run("a");
    let vsock = UnixListener::bind(stage.pod.directory().file("vsock")).unwrap();
    let streams = tokio::spawn(async move {
        let (mut stream, _) = vsock.accept().await.unwrap();
        stream.write_all(b"OK 1\nok\n").await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    });
    let output = stage.pod.directory().file("output");
    stage.exec(&format!("file://{}", output.display())).await;
    stage.start().await.unwrap_err();
    // Its stream is closed at once.
    timeout(HANGS, streams).await.unwrap().unwrap();
    let start = Instant::now();
    stage.delete("a", "e").await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(8), "it waited");
    stage.pod.kill().await;
}
