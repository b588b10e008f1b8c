//! A queue's registers.

use std::io;

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::QueueSetup;

/// No interrupt vector (virtio 1.2, 4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xffff;

/// What the driver wrote about a queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) most: u16,
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    pub(super) kick: EventFd,
    /// Where the kick is connected in the kernel.
    pub(super) kick_at: Option<u64>,
}

/// What a snapshot keeps of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct QueueState {
    size: u16,
    vector: u16,
    enabled: bool,
    descriptors: u64,
    available: u64,
    used: u64,
    /// The next entry of the available ring.
    pub(super) position: u16,
}

impl Queue {
    pub(super) fn save(&self, position: u16) -> QueueState {
        QueueState {
            size: self.size,
            vector: self.vector,
            enabled: self.enabled,
            descriptors: self.descriptors,
            available: self.available,
            used: self.used,
            position,
        }
    }

    /// False where the saved queue is larger than this one may be.
    pub(super) fn restore(&mut self, state: &QueueState) -> bool {
        self.set_size(state.size);
        self.vector = state.vector;
        self.enabled = state.enabled;
        self.descriptors = state.descriptors;
        self.available = state.available;
        self.used = state.used;
        self.size == state.size
    }

    pub(super) fn new(most: u16) -> io::Result<Self> {
        Ok(Self {
            most,
            size: most,
            vector: NO_VECTOR,
            enabled: false,
            descriptors: 0,
            available: 0,
            used: 0,
            kick: EventFd::new(EFD_NONBLOCK)?,
            kick_at: None,
        })
    }

    /// As after a reset; the event stays, and forgets.
    pub(super) fn reset(&mut self) {
        self.size = self.most;
        self.vector = NO_VECTOR;
        self.enabled = false;
        (self.descriptors, self.available, self.used) = (0, 0, 0);
        // Nothing to forget is an error.
        let _ = self.kick.read();
    }

    /// A split queue's size is a power of two (virtio 1.2, 2.7); others are not taken.
    pub(super) fn set_size(&mut self, size: u16) {
        if size.is_power_of_two() && size <= self.most {
            self.size = size;
        }
    }

    pub(super) fn setup(&self, index: usize, call: EventFd) -> io::Result<QueueSetup> {
        Ok(QueueSetup {
            index,
            size: self.size,
            descriptors: self.descriptors,
            available: self.available,
            used: self.used,
            kick: self.kick.try_clone()?,
            call,
            position: 0,
        })
    }
}
