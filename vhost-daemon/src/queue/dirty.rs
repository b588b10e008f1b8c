//! Telling a migrating front end what the device wrote (vhost-user, "Migration").

use virtio_queue::QueueState;
use vm_memory::GuestAddress;

use super::chain::Ranges;
use crate::memory::PinnedMemory;

/// What one queue's requests may write, by head, while the front end logs.
#[derive(Debug)]
pub(super) struct DirtyRanges {
    by_head: Box<[Ranges]>,
    used_ring: (GuestAddress, usize),
}

impl DirtyRanges {
    pub(super) fn new(ring: &QueueState) -> Self {
        let size = usize::from(ring.size);
        Self {
            by_head: vec![Ranges::new(); size].into_boxed_slice(),
            // le16 flags, idx; { le32 id, len } ring[size]; le16 avail_event
            used_ring: (GuestAddress(ring.used_ring), 6 + size * 8),
        }
    }

    /// The place for the ranges of the request with this head.
    pub(super) fn of(&mut self, head: u16) -> Option<&mut Ranges> {
        let ranges = self.by_head.get_mut(usize::from(head))?;
        ranges.clear();
        Some(ranges)
    }

    /// A request is done: all it may have written is dirty.
    pub(super) fn completed(&mut self, head: u16, memory: &PinnedMemory) {
        if let Some(ranges) = self.by_head.get_mut(usize::from(head)) {
            for (addr, len) in ranges.drain(..) {
                memory.mark_dirty(addr, len);
            }
        }
    }

    /// Something in the used ring was written.
    pub(super) fn used_ring_written(&self, memory: &PinnedMemory) {
        let (addr, len) = self.used_ring;
        memory.mark_dirty(addr, len);
    }
}
