//! Receive buffers popped ahead of the frames that will fill them.

use std::collections::VecDeque;

use smallvec::SmallVec;
use vhost_daemon::queue::Token;
use vhost_daemon::sys::Buffers;

/// One of them.
pub(super) struct Held {
    pub(super) token: Token,
    pub(super) buffers: Buffers,
    /// Index of the available entry behind its own.
    pub(super) next_avail: u16,
}

/// Those that one frame may fill.
pub(super) type Allotment = SmallVec<[Held; 1]>;

/// All that no frame has been given, in the order in which the guest made them available.
#[derive(Default)]
pub(super) struct HeldBuffers {
    queue: VecDeque<Held>,
    bytes: usize,
}

impl HeldBuffers {
    /// Bytes in all of them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Adds one that was popped just now.
    pub(super) fn push(&mut self, held: Held) {
        self.bytes += held.buffers.len();
        self.queue.push_back(held);
    }

    /// The oldest ones with `bytes` between them, or just the oldest without mergeable buffers. Fewer
    /// bytes where there are no more.
    pub(super) fn allot(&mut self, bytes: usize, mergeable: bool) -> Allotment {
        let mut allotment = Allotment::new();
        let mut room = 0;
        while room < bytes && (mergeable || allotment.is_empty()) {
            let Some(held) = self.take(VecDeque::pop_front) else {
                break;
            };
            room += held.buffers.len();
            allotment.push(held);
        }
        allotment
    }

    /// The newest, to be given back to the guest.
    pub(super) fn take_newest(&mut self) -> Option<Held> {
        self.take(VecDeque::pop_back)
    }

    /// Takes one back that no frame has filled.
    pub(super) fn put_back(&mut self, held: Held) {
        // Sixteen-bit indices that wrap: the ring is far shorter than half of that.
        let older = |other: &Held| other.next_avail.wrapping_sub(held.next_avail) > u16::MAX / 2;
        let at = self.queue.iter().take_while(|other| older(other)).count();
        self.bytes += held.buffers.len();
        self.queue.insert(at, held);
    }

    fn take(&mut self, end: fn(&mut VecDeque<Held>) -> Option<Held>) -> Option<Held> {
        let held = end(&mut self.queue)?;
        self.bytes -= held.buffers.len();
        Some(held)
    }
}
