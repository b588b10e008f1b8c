//! containerd's task service (runtime v2, `shim.proto`) for the containers of one pod.

mod answer;
mod calls;
mod container;
mod create;
mod deadline;
mod disks;
mod overdue;
mod process;
mod start;
mod stats;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim::asynchronous::ExitSignal;
use containerd_shim::protos::events::task::TaskOOM;
use ringside_pod::{Pod, PodError, PodEvent};
use tokio::sync::mpsc::Receiver;

use crate::publish::Events;
use crate::shim::KILLED;
use container::Container;
use process::Process;

/// The service, of which there is one in a shim.
#[derive(Clone)]
pub(crate) struct Service {
    shared: Arc<Shared>,
}

/// What calls and the pod's events have together.
pub(crate) struct Shared {
    /// containerd's.
    namespace: String,
    events: Events,
    exit: Arc<ExitSignal>,
    /// Where containerd finds the shim, until it is removed: the next one has the same.
    socket: Mutex<Option<PathBuf>>,
    /// Held while the pod starts: who wants it waits.
    pod: tokio::sync::Mutex<PodState>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    /// How long a guest may take to tell the end of a process that was killed.
    patience: Duration,
}

/// How far the pod is.
enum PodState {
    /// Nobody has asked for it.
    Unborn,
    Runs(Arc<Pod>),
    /// It ended before its containers did, for this reason.
    Ended(String),
}

impl Service {
    pub(crate) fn new(
        namespace: String,
        events: Events,
        exit: Arc<ExitSignal>,
        socket: PathBuf,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                namespace,
                events,
                exit,
                socket: Mutex::new(Some(socket)),
                pod: tokio::sync::Mutex::new(PodState::Unborn),
                containers: Mutex::new(BTreeMap::new()),
                patience: overdue::PATIENCE,
            }),
        }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
}

impl Shared {
    /// The pod.
    ///
    /// # Errors
    /// When there is none, or not any more.
    async fn pod(&self) -> Result<Arc<Pod>, PodError> {
        match &*self.pod.lock().await {
            PodState::Runs(pod) => Ok(Arc::clone(pod)),
            PodState::Unborn => Err(PodError::Ended("it was never started".to_owned())),
            PodState::Ended(reason) => Err(PodError::Ended(reason.clone())),
        }
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Container>>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the pod, if it runs, and gives the shim's name free for the next container of that id.
    pub(crate) async fn stop(&self) {
        let mut state = self.pod.lock().await;
        if let PodState::Runs(pod) = &*state {
            pod.stop().await;
            *state = PodState::Ended("it was shut down".to_owned());
        }
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = socket.take() {
            // It may be gone with the bundle's `address`.
            let _ = std::fs::remove_file(socket);
        }
    }

    /// Carries out what the pod tells, until it has ended.
    async fn follow(self: Arc<Self>, mut events: Receiver<PodEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                PodEvent::Exit {
                    container,
                    exec,
                    code,
                } => self.exited(&container, &exec, code),
                PodEvent::OutOfMemory { container } => self.ran_out_of_memory(&container),
                PodEvent::Ended { reason } => self.ended(reason).await,
            }
        }
    }

    /// Tells of one of the pod's containers, whatever its guest calls it.
    fn ran_out_of_memory(&self, container: &str) {
        let Some(container) = self.containers().get(container).cloned() else {
            return;
        };
        let event = TaskOOM {
            container_id: container.id.clone(),
            ..TaskOOM::default()
        };
        self.events.publish_once(event, &container.out_of_memory);
    }

    fn exited(&self, container: &str, exec: &str, code: u32) {
        let found = self.containers().get(container).cloned();
        if let Some(process) = found.and_then(|it| it.process(exec).ok()) {
            self.end_process(process, code);
        }
    }

    /// Tells of a process's end, once its start was told.
    fn end_process(&self, process: Arc<Process>, code: u32) {
        if !process.first_end() {
            return;
        }
        let events = self.events.clone();
        tokio::spawn(async move {
            if let Some(exit) = process.end(code).await {
                events.publish(exit);
            }
        });
    }

    /// The machine is gone: so is every process in it, and what is left of the pod goes, too.
    async fn ended(&self, reason: String) {
        tracing::error!("the pod has ended: {reason}");
        let mut state = self.pod.lock().await;
        if matches!(*state, PodState::Ended(_)) {
            // It was ended, and why is known.
            return self.end_all();
        }
        let was = std::mem::replace(&mut *state, PodState::Ended(reason));
        self.end_all();
        if let PodState::Runs(pod) = was {
            pod.kill().await;
        }
    }

    /// No process of any container is left.
    fn end_all(&self) {
        let containers: Vec<_> = self.containers().values().cloned().collect();
        for process in containers.iter().flat_map(|it| it.processes()) {
            self.end_process(process, KILLED);
        }
    }
}
