//! The library's calls on a vring, on the control thread.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex};

use vhost_user_backend::{VringRwLock, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{Error as VirtQueueError, QueueT};

use super::{Ring, Shared};
use crate::memory::SharedMemory;
use crate::queue::Call;
use crate::wakeup::Wakeup;

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

    /// The used index comes from guest memory, at the moment the ring rests: the library reads and
    /// sets it later, when the worker may have moved it already. A ring that rested for want of
    /// addresses may run now.
    fn set_queue_info(&self, desc: u64, avail: u64, used: u64) -> Result<(), VirtQueueError> {
        self.change_owned(|state, owner| {
            state.set_queue_info(desc, avail, used)?;
            state.set_queue_next_used(state.queue_used_idx()?);
            owner.has_addresses = true;
            if let Some(doorbell) = &owner.doorbell {
                doorbell.wake();
            }
            Ok(())
        })
    }

    fn queue_next_avail(&self) -> u16 {
        self.0.state.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.change(|state| state.set_queue_next_avail(base));
    }

    /// See [`set_queue_info`](Self::set_queue_info).
    fn set_queue_next_used(&self, _idx: u16) {}

    fn queue_used_idx(&self) -> Result<u16, VirtQueueError> {
        self.0.state.queue_used_idx()
    }

    fn set_queue_size(&self, num: u16) {
        self.change_owned(|state, owner| {
            state.set_queue_size(num);
            owner.has_bad_size = !num.is_power_of_two();
        });
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        if self.0.state.get_ref().get_queue().event_idx_enabled() != enabled {
            self.change(|state| state.set_queue_event_idx(enabled));
        }
    }

    fn set_queue_ready(&self, ready: bool) {
        self.change(|state| state.set_queue_ready(ready));
    }

    /// The library watches an eventfd of ours in the kick's place. It would go on watching a kick that was
    /// replaced, or that has come to its end (a pipe without a writer), and would take its count: a read that
    /// waits for ever where the front end took it first, or put less there.
    fn set_kick(&self, file: Option<File>) {
        if file.is_none() && self.0.state.get_ref().get_kick().is_none() {
            tracing::warn!("a front end that wants its ring polled without kicks is not supported");
        }
        self.change_owned(|state, owner| {
            if file.is_none() {
                state.set_kick(None);
                owner.doorbell = None;
            } else if owner.doorbell.is_none() {
                match doorbell() {
                    Ok((ours, theirs)) => {
                        state.set_kick(Some(theirs));
                        owner.doorbell = Some(ours);
                    }
                    Err(error) => tracing::error!(%error, "the kick descriptor cannot be used"),
                }
            }
            owner.kick = file;
        });
    }

    /// The library's loop saw the doorbell, and must not see it again and again.
    fn read_kick(&self) -> io::Result<bool> {
        if let Some(doorbell) = &self.owner().doorbell {
            doorbell.clear();
        }
        Ok(self.0.state.get_ref().is_enabled())
    }

    fn set_call(&self, file: Option<File>) {
        let mut owner = self.owner();
        let call = file.map(|file| Call::new(file, &owner.signalling));
        let copy = call.transpose().and_then(|call| {
            let copy = call.as_ref().map(Call::try_clone).transpose()?;
            Ok((call, copy))
        });
        match copy {
            Ok((call, copy)) => {
                owner.call = call;
                if let Some(running) = &owner.running {
                    running.replace_call(copy);
                }
            }
            Err(error) => tracing::error!(%error, "the call descriptor cannot be used"),
        }
    }

    fn set_err(&self, file: Option<File>) {
        self.0.state.set_err(file);
    }
}

/// An eventfd, for us to ring and for the library to watch.
fn doorbell() -> io::Result<(Wakeup, File)> {
    let ours = Wakeup::new()?;
    let theirs = ours.as_fd().try_clone_to_owned()?;
    Ok((ours, theirs.into()))
}
