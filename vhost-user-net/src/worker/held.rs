//! Receive buffers popped ahead of the frames that will fill them.

use std::collections::VecDeque;

use vhost_daemon::queue::Token;
use vhost_daemon::sys::Buffers;

/// One of them.
pub(super) struct Held {
    pub(super) token: Token,
    pub(super) buffers: Buffers,
    /// Bytes in it when it was popped.
    pub(super) len: usize,
    /// Index of the available entry behind its own.
    pub(super) next_avail: u16,
}

/// All of them, in the order in which the guest made them available.
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

    /// Adds one that was popped just now, so that the ring goes on at `next_avail`.
    pub(super) fn push(&mut self, token: Token, buffers: Buffers, next_avail: u16) {
        let len = buffers.len();
        self.bytes += len;
        self.queue.push_back(Held {
            token,
            buffers,
            len,
            next_avail,
        });
    }

    /// The oldest, to be filled.
    pub(super) fn take_oldest(&mut self) -> Option<Held> {
        self.take(VecDeque::pop_front)
    }

    /// The newest, to be given back.
    pub(super) fn take_newest(&mut self) -> Option<Held> {
        self.take(VecDeque::pop_back)
    }

    fn take(&mut self, end: fn(&mut VecDeque<Held>) -> Option<Held>) -> Option<Held> {
        let held = end(&mut self.queue)?;
        self.bytes -= held.len;
        Some(held)
    }

    /// Where a frame may go: into all of them, or into the first alone.
    pub(super) fn space(&self, mergeable: bool) -> impl Iterator<Item = &Buffers> {
        let count = if mergeable { self.queue.len() } else { 1 };
        self.queue.iter().take(count).map(|held| &held.buffers)
    }

    /// How many of them a frame of `len` bytes fills.
    pub(super) fn count_for(&self, len: usize) -> usize {
        let mut room = 0;
        let filled = self.queue.iter().take_while(|held| {
            let before = room;
            room += held.len;
            before < len
        });
        filled.count()
    }
}
