//! A vring: the library's state of it, and the hand-over to and from the queue's thread.

mod vring;

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use vhost_user_backend::{VringRwLock, VringT};
use virtio_queue::{QueueState, QueueT};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::StopFlag;
use crate::memory::{Memory, PinnedMemory, SharedMemory};
use crate::metrics::QueueMetrics;
use crate::queue::{Call, InFlightLog, QueueError, RunningQueue, Signalling};
use crate::wakeup::Wakeup;
use crate::worker::Outcome;

/// A vring whose owner is either the control thread or the queue's thread, never both.
///
/// The library calls the `VringT` methods on the control thread when protocol messages come.
/// Those that change the ring first stop the worker and wait until it has drained, so
/// `GET_VRING_BASE`, a disabled ring, a new memory table all mean: nothing of ours is in flight.
/// Only a new call descriptor reaches a running worker without stopping it.
#[derive(Clone)]
pub(crate) struct Ring(Arc<Shared>);

struct Shared {
    state: VringRwLock<SharedMemory>,
    memory: SharedMemory,
    owner: Mutex<Owner>,
    returned: Condvar,
}

#[derive(Default)]
struct Owner {
    /// The worker's mailbox while it runs, or while a ring that cannot run waits to be changed.
    running: Option<Arc<StopFlag>>,
    /// Control threads that are changing the ring.
    changing: usize,
    /// The front end's kick: workers watch it, nobody reads it.
    kick: Option<File>,
    /// What the library watches in its place, to start a ring that rests.
    doorbell: Option<Wakeup>,
    call: Option<Call>,
    /// Whether the worker is writing to a call descriptor, of which the front end may make it wait.
    signalling: Signalling,
    /// The front end told where the rings are.
    has_addresses: bool,
    /// The front end sent a size that is no power of two.
    has_bad_size: bool,
    /// The worker panicked: what it had taken is unknown.
    failed: bool,
}

/// What [`Ring::take`] hands to the queue's thread.
pub(crate) enum Take {
    /// The ring may not run now.
    Rest,
    /// It runs: the thread owns it until it is given back.
    Run(Box<RunningQueue>, Arc<StopFlag>),
    /// It should run and cannot. To be given back once the control thread asks for it.
    Refuse(CannotRun, Arc<StopFlag>),
}

/// Why a ring that is started and enabled cannot run.
#[derive(Debug, Error)]
pub(crate) enum CannotRun {
    #[error("the front end set a queue size that is no power of two")]
    BadSize,
    #[error("the worker of this queue panicked")]
    Failed,
    #[error("its memory cannot be used")]
    Memory(#[from] io::Error),
    #[error(transparent)]
    Ring(#[from] QueueError),
}

/// So long a worker that is to stop may write to its call descriptor before it is interrupted.
const SIGNALLING_PATIENCE: Duration = Duration::from_millis(50);

impl Ring {
    fn owner(&self) -> MutexGuard<'_, Owner> {
        self.0.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the worker if one runs, waits until it has drained, applies `change`, and lets it go
    /// on if the ring may still run.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&VringRwLock<SharedMemory>) -> R) -> R {
        self.change_owned(|state, _| change(state))
    }

    fn change_owned<R>(
        &self,
        change: impl FnOnce(&VringRwLock<SharedMemory>, &mut Owner) -> R,
    ) -> R {
        let mut owner = self.owner();
        owner.changing += 1;
        if let Some(stop) = &owner.running {
            stop.raise();
        }
        let mut asked_long_ago = false;
        while let Some(stop) = &owner.running {
            // Not the first time round: it has only just been asked.
            if asked_long_ago && owner.signalling.is_under_way() {
                stop.interrupt();
            }
            let (waited, late) = self
                .0
                .returned
                .wait_timeout(owner, SIGNALLING_PATIENCE)
                .unwrap_or_else(PoisonError::into_inner);
            owner = waited;
            asked_long_ago = late.timed_out();
        }
        let result = change(&self.0.state, &mut owner);
        owner.changing -= 1;
        self.0.returned.notify_all();
        result
    }

    /// Takes the ring for the calling thread, if it may run: started, enabled, addresses known.
    /// Waits while a control thread is changing it. If `logs_writes` after that, what it writes is marked in
    /// the front end's dirty log.
    ///
    /// # Errors
    /// When descriptors are short.
    pub(crate) fn take(
        &self,
        metrics: &Arc<QueueMetrics>,
        log: impl FnOnce() -> Option<InFlightLog>,
        logs_writes: impl FnOnce() -> bool,
    ) -> io::Result<Take> {
        let mut owner = self.owner();
        while owner.changing > 0 {
            owner = self
                .0
                .returned
                .wait(owner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let state = self.0.state.get_ref();
        if !state.get_queue().ready() || !state.is_enabled() || !owner.has_addresses {
            return Ok(Take::Rest);
        }
        let ring = state.get_queue().state();
        drop(state);
        let kick = owner.kick.as_ref().map(File::try_clone).transpose()?;
        let call = owner.call.as_ref().map(Call::try_clone).transpose()?;
        let stop = Arc::new(StopFlag::new(kick)?);
        let queue = self.queue(&owner, &ring, call, metrics, log);
        owner.running = Some(stop.clone());
        Ok(match queue {
            Ok(mut queue) => {
                if logs_writes() {
                    queue.log_writes(&ring);
                }
                Take::Run(Box::new(queue), stop)
            }
            Err(why) => Take::Refuse(why, stop),
        })
    }

    fn queue(
        &self,
        owner: &Owner,
        ring: &QueueState,
        call: Option<Call>,
        metrics: &Arc<QueueMetrics>,
        log: impl FnOnce() -> Option<InFlightLog>,
    ) -> Result<RunningQueue, CannotRun> {
        if owner.failed {
            return Err(CannotRun::Failed);
        }
        if owner.has_bad_size {
            return Err(CannotRun::BadSize);
        }
        let memory = PinnedMemory::current(&self.0.memory)?;
        check_backing(&memory)?;
        if memory.is_lost() {
            return Err(QueueError::MemoryLost.into());
        }
        Ok(RunningQueue::new(
            ring,
            memory,
            call,
            metrics.clone(),
            log(),
        )?)
    }

    /// Gives the ring back to the control thread; without an outcome the worker panicked.
    pub(crate) fn give_back(&self, outcome: Result<Option<Outcome>, Panicked>) {
        let mut owner = self.owner();
        match outcome {
            Ok(Some(outcome)) => {
                self.0.state.set_queue_next_avail(outcome.next_avail);
                self.0.state.set_queue_next_used(outcome.next_used);
            }
            Ok(None) => {}
            Err(Panicked) => owner.failed = true,
        }
        owner.running = None;
        self.0.returned.notify_all();
    }

    /// Waits until a control thread has changed it, or that long.
    pub(crate) fn wait_for_change(&self, time: Duration) {
        let waited = self.0.returned.wait_timeout(self.owner(), time);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether the queue's thread has it.
    pub(crate) fn runs(&self) -> bool {
        self.owner().running.is_some()
    }

    /// Stops the ring for good: the connection is over.
    pub(crate) fn shut(&self) {
        self.change(|state| state.set_queue_ready(false));
    }
}

/// A worker's panic, which is a bug of ours.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Refuses a table with a region that reaches beyond its file: that is no memory. (A file that is cut
/// short later is found out when it is touched, see [`crate::sys::GuardedMemory`].)
pub(super) fn check_backing(memory: &Memory) -> io::Result<()> {
    for region in memory.iter() {
        let Some(backing) = region.file_offset() else {
            continue;
        };
        let metadata = backing.file().metadata()?;
        let end = backing.start().checked_add(region.len());
        if metadata.is_file() && end.is_none_or(|end| end > metadata.len()) {
            let message = format!(
                "memory region at {:#x} reaches beyond its file",
                region.start_addr().0
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
    }
    Ok(())
}
