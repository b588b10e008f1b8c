//! Claiming what a helper has started.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use ringside_protocol::agent::{Streams, WindowSize};
use rustix::event::{EventfdFlags, eventfd};

use super::super::children::Children;
use super::super::error::Error;
use super::super::events::Events;
use super::super::mover::Mover;
use super::super::spec::ProcessGlance;
use super::super::watcher::Watcher;
use super::super::{Pod, stdio};
use super::process_name;

/// A pod that nobody talks to.
fn pod() -> Pod {
    let events = Arc::new(Events::default());
    let nobody = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    Pod {
        mover: Mover::start(nobody, Arc::clone(&events)).unwrap(),
        watcher: Watcher::start(Arc::clone(&events)).unwrap(),
        events,
        children: Children::default(),
        containers: Mutex::default(),
        sandbox: Mutex::default(),
    }
}

#[test]
fn a_process_whose_container_is_gone_is_ended() {
    let pod = pod();
    let glance: ProcessGlance = serde_json::from_str("{}").unwrap();
    let prepared = stdio::prepare(&pod.mover, &glance, &Streams::new(), &WindowSize::new());
    let (prepared, _) = prepared.unwrap();
    let mut child = Command::new("sleep").arg("20").spawn().unwrap();
    let claimed = pod.claim(&process_name("gone", "exec"), prepared, child.id());
    assert!(matches!(claimed, Err(Error::NoContainer(_))));
    assert_eq!(
        child.wait().unwrap().signal(),
        Some(9),
        "it runs on, and nobody knows"
    );
}
