//! A queue on guest memory made of the input: rings, descriptors, indirect tables.
//!
//! Byte 0 chooses `EVENT_IDX`; the rest is guest memory from the descriptor table on.

use std::sync::Arc;

use vhost_daemon::memory::{Memory, PinnedMemory};
use vhost_daemon::metrics::QueueMetrics;
use vhost_daemon::queue::RunningQueue;
use virtio_queue::QueueState;
use vm_memory::{Bytes, GuestAddress};

const SIZE: u16 = 8;
const MEMORY: usize = 0x3000;

/// What one input does.
pub fn run(input: &[u8]) {
    let Some((choice, content)) = input.split_first() else {
        return;
    };
    let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
    let content = &content[..content.len().min(MEMORY)];
    memory.write_slice(content, GuestAddress(0)).unwrap();
    let memory = PinnedMemory::new(memory).unwrap();
    let state = QueueState {
        max_size: SIZE,
        next_avail: 0,
        next_used: 0,
        event_idx_enabled: choice & 1 == 1,
        size: SIZE,
        ready: true,
        desc_table: 0,
        avail_ring: 0x80,
        used_ring: 0x100,
    };
    let metrics = Arc::new(QueueMetrics::default());
    let mut queue = RunningQueue::new(&state, memory, None, metrics, None).unwrap();
    while let Ok(Some((token, chain))) = queue.pop() {
        let written = chain.map_or(0, |chain| {
            assert!(chain.readable.len() + chain.writable.len() <= 1 << 32);
            let mut writable = chain.writable;
            writable.zero_front(64);
            writable.advance(64);
            0
        });
        queue.complete(token, written);
        queue.publish();
    }
    assert_eq!(queue.in_flight(), 0);
}
