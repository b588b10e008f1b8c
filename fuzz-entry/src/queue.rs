//! A queue of eight entries on guest memory that an input is.

use std::sync::Arc;

use vhost_daemon::memory::{Memory, PinnedMemory};
use vhost_daemon::metrics::QueueMetrics;
use vhost_daemon::queue::{InFlightLog, RunningQueue};
use virtio_queue::QueueState;
use vm_memory::{Bytes, GuestAddress};

pub(crate) const SIZE: u16 = 8;
const MEMORY: usize = 0x3000;

/// Guest memory that begins with the content: the descriptor table, the available ring at 0x80, the used ring
/// at 0x100.
pub(crate) fn memory_of(content: &[u8]) -> PinnedMemory {
    let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
    let content = &content[..content.len().min(MEMORY)];
    memory.write_slice(content, GuestAddress(0)).unwrap();
    PinnedMemory::new(memory).unwrap()
}

/// A queue that goes on at an index of both rings.
pub(crate) fn start(
    memory: &PinnedMemory,
    index: u16,
    has_event_idx: bool,
    log: Option<InFlightLog>,
) -> RunningQueue {
    let state = QueueState {
        max_size: SIZE,
        next_avail: index,
        next_used: index,
        event_idx_enabled: has_event_idx,
        size: SIZE,
        ready: true,
        desc_table: 0,
        avail_ring: 0x80,
        used_ring: 0x100,
    };
    let metrics = Arc::new(QueueMetrics::default());
    RunningQueue::new(&state, memory.clone(), None, metrics, log).unwrap()
}
