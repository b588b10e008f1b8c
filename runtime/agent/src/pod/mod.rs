//! A pod's guest: containers made, run and taken away as the host says over vsock.
//!
//! See docs/agent.md.

mod boot;
mod cgroup;
mod children;
mod containers;
mod control;
mod copy;
mod device_rules;
mod devices;
pub mod dry_run;
mod error;
mod events;
pub(crate) mod helper;
mod layout;
mod lifecycle;
mod mover;
mod network;
mod sandbox;
mod service;
mod spec;
mod stdio;
mod storage;
mod streams;
mod watcher;

use std::fs::File;
use std::os::fd::IntoRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use ringside_protocol::port;

use self::children::Children;
use self::containers::Containers;
use self::events::Events;
use self::mover::Mover;
use self::watcher::Watcher;
use crate::sys;

/// A thread's stack, in bytes: nothing here recurses. It is mapped, and touched only as far as it is used.
const STACK: usize = 128 * 1024;

/// Connections that wait to be accepted: the host may announce many streams at once.
const BACKLOG: i32 = 128;

/// Everything the agent knows.
#[derive(Debug)]
struct Pod {
    events: Arc<Events>,
    children: Children,
    mover: Arc<Mover>,
    watcher: Arc<Watcher>,
    containers: Mutex<Containers>,
    sandbox: Mutex<sandbox::Sandbox>,
}

impl Pod {
    fn containers(&self) -> MutexGuard<'_, Containers> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Boots and serves for as long as the machine runs; returns why it could not.
pub(crate) fn run() -> anyhow::Error {
    match start() {
        Ok(pod) => pod
            .children
            .collect(|name, status| pod.ended(&name, status)),
        Err(error) => error,
    }
}

fn start() -> Result<Arc<Pod>> {
    sys::heap::be_small();
    // Descriptor 3 is where a helper finds its socket: it is to be nothing else meanwhile.
    let _ = File::open("/dev/console")
        .context("cannot open /dev/console")?
        .into_raw_fd();
    boot::boot()?;
    let events = Arc::new(Events::default());
    let streams = sys::vsock::listen(port::STREAM, BACKLOG)
        .with_context(|| format!("cannot listen on vsock port {}", port::STREAM))?;
    let pod = Arc::new(Pod {
        mover: Mover::start(streams, Arc::clone(&events)).context("cannot start a thread")?,
        watcher: Watcher::start(Arc::clone(&events)).context("cannot watch memory")?,
        events,
        children: Children::default(),
        containers: Mutex::default(),
        sandbox: Mutex::default(),
    });
    let listener = sys::vsock::listen(port::AGENT, BACKLOG)
        .with_context(|| format!("cannot listen on vsock port {}", port::AGENT))?;
    let mut server = service::server(&pod, listener.into_raw_fd())?;
    server
        .start()
        .map_err(|error| anyhow!("cannot serve: {error}"))?;
    // It serves for ever, on threads of its own.
    std::mem::forget(server);
    Ok(pod)
}
