//! A container: its processes, and what it has on the host.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use containerd_shim::protos::ttrpc::{Code, Error};
use oci_spec::runtime::{ContainerState, Spec, State};
use ringside_pod::grouping::{Membership, membership};
use ringside_pod::spec::HostHooks;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::answer::status;
use super::process::Process;
use crate::bundle;

/// A container of the pod.
pub(super) struct Container {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    /// What stands for its processes on the host.
    pub(super) pid: u32,
    pub(super) hooks: HostHooks,
    /// Whether the pod began with it, and ends with it.
    pub(super) is_first: bool,
    /// Serials of the disks that it has.
    pub(super) disks: Vec<String>,
    /// The specification's version and annotations, for hooks.
    state: State,
    paused: AtomicBool,
    /// One permit: who deletes it holds it.
    pub(super) deleting: Semaphore,
    /// When the guest was first asked to delete it.
    pub(super) first_deletion: OnceLock<Instant>,
    /// Whether containerd is about to be told that it ran out of memory, or just was.
    pub(super) out_of_memory: Arc<AtomicBool>,
    processes: Mutex<BTreeMap<String, Arc<Process>>>,
}

impl Container {
    pub(super) fn new(
        id: String,
        bundle: PathBuf,
        pid: u32,
        spec: &Spec,
        (hooks, disks): (HostHooks, Vec<String>),
        first: Arc<Process>,
    ) -> Self {
        Self {
            is_first: membership(&id, &bundle::annotations(spec)) == Membership::First,
            state: state(&id, &bundle, pid, spec),
            id,
            bundle,
            pid,
            hooks,
            disks,
            paused: AtomicBool::new(false),
            deleting: Semaphore::new(1),
            first_deletion: OnceLock::new(),
            out_of_memory: Arc::new(AtomicBool::new(false)),
            processes: Mutex::new(BTreeMap::from([(String::new(), first)])),
        }
    }

    /// A process by containerd's name for it: empty is the first.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub(super) fn process(&self, exec: &str) -> Result<Arc<Process>, Error> {
        let found = self.locked().get(exec).cloned();
        found.ok_or_else(|| {
            let message = format!("container {} has no process {exec}", self.id);
            status(Code::NOT_FOUND, message)
        })
    }

    pub(super) fn processes(&self) -> Vec<Arc<Process>> {
        self.locked().values().cloned().collect()
    }

    /// Adds a further process.
    ///
    /// # Errors
    /// `ALREADY_EXISTS`.
    pub(super) fn add(&self, exec: &str, process: Process) -> Result<(), Error> {
        let mut processes = self.locked();
        if processes.contains_key(exec) {
            let message = format!("container {} has a process {exec} already", self.id);
            return Err(status(Code::ALREADY_EXISTS, message));
        }
        processes.insert(exec.to_owned(), Arc::new(process));
        Ok(())
    }

    pub(super) fn remove(&self, exec: &str) {
        self.locked().remove(exec);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Its state as hooks get it.
    pub(super) fn state(&self, status: ContainerState) -> State {
        let mut state = self.state.clone();
        state.set_status(status);
        state
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Process>>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A container's state as hooks get it (runtime.md, "State").
pub(super) fn state(id: &str, bundle: &std::path::Path, pid: u32, spec: &Spec) -> State {
    let mut state = State::default();
    state.set_version(spec.version().clone());
    state.set_id(id.to_owned());
    state.set_status(ContainerState::Creating);
    state.set_pid(i32::try_from(pid).ok());
    state.set_bundle(bundle.to_owned());
    state.set_annotations(spec.annotations().clone());
    state
}
