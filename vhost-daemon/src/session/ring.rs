//! A vring: the library's state of it, and the hand-over to and from the queue's thread.

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use vhost_user_backend::{VringRwLock, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{Error as VirtQueueError, QueueT};
use vmm_sys_util::event::{EventConsumer, EventNotifier};

use super::StopFlag;
use crate::memory::{PinnedMemory, SharedMemory};
use crate::metrics::QueueMetrics;
use crate::queue::{InFlightLog, RunningQueue};
use crate::sys::eventfd_notifier;
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
    /// The worker's mailbox while it runs.
    running: Option<Arc<StopFlag>>,
    /// Control threads that are changing the ring.
    changing: usize,
    /// The front end sent a size that is no power of two.
    bad_size: bool,
}

/// What [`Ring::take`] hands to the queue's thread.
pub(crate) struct Taken {
    pub(crate) queue: RunningQueue,
    pub(crate) stop: Arc<StopFlag>,
}

impl Ring {
    fn owner(&self) -> MutexGuard<'_, Owner> {
        self.0.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the worker if one runs, waits until it has drained, applies `change`, and lets it go
    /// on if the ring may still run.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&VringRwLock<SharedMemory>) -> R) -> R {
        let mut owner = self.owner();
        owner.changing += 1;
        if let Some(stop) = &owner.running {
            stop.raise();
        }
        while owner.running.is_some() {
            owner = self
                .0
                .returned
                .wait(owner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let result = change(&self.0.state);
        owner.changing -= 1;
        self.0.returned.notify_all();
        result
    }

    /// Takes the ring for the calling thread, if it may run: started, enabled, kick known. Waits
    /// while a control thread is changing it.
    ///
    /// # Errors
    /// One sentence for the log when the ring cannot run although it should.
    pub(crate) fn take(
        &self,
        metrics: &Arc<QueueMetrics>,
        log: impl FnOnce() -> Option<InFlightLog>,
    ) -> Result<Option<Taken>, String> {
        let mut owner = self.owner();
        while owner.changing > 0 {
            owner = self
                .0
                .returned
                .wait(owner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let state = self.0.state.get_ref();
        if !state.get_queue().ready() || !state.is_enabled() {
            return Ok(None);
        }
        if owner.bad_size {
            return Err("queue size is no power of two".to_owned());
        }
        let kick = state.get_kick().as_ref().map(EventConsumer::try_clone);
        let call = state.get_call().as_ref().map(EventNotifier::try_clone);
        let (kick, call) = (kick.transpose(), call.transpose());
        let (kick, call) = (
            kick.map_err(|e| e.to_string())?,
            call.map_err(|e| e.to_string())?,
        );
        let queue = RunningQueue::new(
            &state.get_queue().state(),
            PinnedMemory::current(&self.0.memory),
            call,
            metrics.clone(),
            log(),
        )
        .map_err(|error| error.to_string())?;
        drop(state);
        let stop = Arc::new(StopFlag::new(kick).map_err(|error| error.to_string())?);
        owner.running = Some(stop.clone());
        Ok(Some(Taken { queue, stop }))
    }

    /// Gives the ring back to the control thread.
    pub(crate) fn give_back(&self, outcome: Option<Outcome>) {
        if let Some(outcome) = outcome {
            self.0.state.set_queue_next_avail(outcome.next_avail);
            self.0.state.set_queue_next_used(outcome.next_used);
        }
        self.owner().running = None;
        self.0.returned.notify_all();
    }

    /// Stops the ring for good: the connection is over.
    pub(crate) fn shut(&self) {
        self.change(|state| state.set_queue_ready(false));
    }
}

impl<'a> VringStateGuard<'a, SharedMemory> for Ring {
    type G = <VringRwLock<SharedMemory> as VringStateGuard<'a, SharedMemory>>::G;
}

impl<'a> VringStateMutGuard<'a, SharedMemory> for Ring {
    type G = <VringRwLock<SharedMemory> as VringStateMutGuard<'a, SharedMemory>>::G;
}

impl VringT<SharedMemory> for Ring {
    fn new(memory: SharedMemory, max_queue_size: u16) -> Result<Self, VirtQueueError> {
        Ok(Self(Arc::new(Shared {
            state: VringRwLock::new(memory.clone(), max_queue_size)?,
            memory,
            owner: Mutex::default(),
            returned: Condvar::new(),
        })))
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, SharedMemory>>::G {
        self.0.state.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, SharedMemory>>::G {
        self.0.state.get_mut()
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), VirtQueueError> {
        self.change(|state| state.add_used(desc_index, len))
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.0.state.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, VirtQueueError> {
        self.change(VringT::enable_notification)
    }

    fn disable_notification(&self) -> Result<(), VirtQueueError> {
        self.change(VringT::disable_notification)
    }

    fn needs_notification(&self) -> Result<bool, VirtQueueError> {
        self.change(VringT::needs_notification)
    }

    fn set_enabled(&self, enabled: bool) {
        if self.0.state.get_ref().is_enabled() != enabled {
            self.change(|state| state.set_enabled(enabled));
        }
    }

    fn set_queue_info(&self, desc: u64, avail: u64, used: u64) -> Result<(), VirtQueueError> {
        self.change(|state| state.set_queue_info(desc, avail, used))
    }

    fn queue_next_avail(&self) -> u16 {
        self.0.state.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.change(|state| state.set_queue_next_avail(base));
    }

    fn set_queue_next_used(&self, idx: u16) {
        self.change(|state| state.set_queue_next_used(idx));
    }

    fn queue_used_idx(&self) -> Result<u16, VirtQueueError> {
        self.0.state.queue_used_idx()
    }

    fn set_queue_size(&self, num: u16) {
        self.change(|state| state.set_queue_size(num));
        self.owner().bad_size = !num.is_power_of_two();
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        if self.0.state.get_ref().get_queue().event_idx_enabled() != enabled {
            self.change(|state| state.set_queue_event_idx(enabled));
        }
    }

    fn set_queue_ready(&self, ready: bool) {
        self.change(|state| state.set_queue_ready(ready));
    }

    fn set_kick(&self, file: Option<File>) {
        self.change(|state| state.set_kick(file));
    }

    /// The queue's thread watches the kick by itself: there is nothing to read here.
    fn read_kick(&self) -> io::Result<bool> {
        Ok(self.0.state.get_ref().is_enabled())
    }

    fn set_call(&self, file: Option<File>) {
        let copy = file.as_ref().map(File::try_clone).transpose();
        self.0.state.set_call(file);
        match copy {
            Ok(copy) => {
                if let Some(running) = &self.owner().running {
                    running.replace_call(copy.map(eventfd_notifier));
                }
            }
            Err(error) => tracing::error!(%error, "the call descriptor cannot be duplicated"),
        }
    }

    fn set_err(&self, file: Option<File>) {
        self.0.state.set_err(file);
    }
}
