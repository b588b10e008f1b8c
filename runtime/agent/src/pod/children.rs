//! Every child of the agent as it ends: helpers, the processes of containers, and orphans.

use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, WaitStatus};

use crate::sys;

/// A process of a container's: which container's, and which of its.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ProcessName {
    pub(super) container: String,
    /// Empty: the container's init process.
    pub(super) exec: String,
}

/// The processes that are of interest when they end. A process id means nothing any more once its process
/// was collected, so collecting and whatever uses an id exclude each other: both hold this lock.
#[derive(Debug, Default)]
pub(super) struct Children {
    known: Mutex<HashMap<Pid, ProcessName>>,
    /// Helpers started so far. All that ever becomes the agent's child comes from one.
    started: Mutex<u64>,
    another: Condvar,
}

impl Children {
    /// Starts a helper. Its end is of no interest: it says itself how it went.
    pub(super) fn spawn_helper(&self, command: &mut Command) -> io::Result<()> {
        // The standard library's handle does nothing when it is dropped: whoever ended is collected below.
        let spawned = command.spawn().map(drop);
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.another.notify_all();
        spawned
    }

    /// From now on its end is told of as this process's.
    pub(super) fn expect(&self, pid: Pid, name: ProcessName) {
        self.lock().insert(pid, name);
    }

    /// Does something with a process that is there: its id is its own meanwhile. `None` where it ended.
    pub(super) fn while_there<T>(&self, pid: Pid, act: impl FnOnce(Pid) -> T) -> Option<T> {
        let known = self.lock();
        known.contains_key(&pid).then(|| act(pid))
    }

    /// Collects children for ever; `ended` hears of those that were expected.
    pub(super) fn collect(&self, mut ended: impl FnMut(ProcessName, WaitStatus)) -> ! {
        loop {
            let started = *self.started.lock().unwrap_or_else(PoisonError::into_inner);
            match sys::reap::ended_child() {
                Ok(pid) => {
                    let mut known = self.lock();
                    let status = sys::reap::collect(pid);
                    let name = known.remove(&pid);
                    drop(known);
                    if let (Ok(status), Some(name)) = (status, name) {
                        ended(name, status);
                    }
                }
                // There is no child at all.
                Err(_) => self.wait_for_another(started),
            }
        }
    }

    fn wait_for_another(&self, seen: u64) {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.another.wait_while(started, |started| *started == seen));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, ProcessName>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The exit code as a shell gives it.
pub(super) fn code(status: WaitStatus) -> u32 {
    let signalled = status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or(signalled).unwrap_or(255);
    code.unsigned_abs()
}
