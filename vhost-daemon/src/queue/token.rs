//! The duty to complete a request.

use std::time::Instant;

/// The duty to put one descriptor chain into the used ring, exactly once.
///
/// [`RunningQueue::pop`](super::RunningQueue::pop) hands it out and
/// [`RunningQueue::complete`](super::RunningQueue::complete) takes it back. Losing one would leave
/// the guest waiting for ever: dropping it is a bug that a debug assertion shows.
#[must_use = "a request must be completed exactly once"]
#[derive(Debug)]
pub struct Token {
    head: u16,
    popped: Instant,
}

impl Token {
    pub(super) fn new(head: u16, popped: Instant) -> Self {
        Self { head, popped }
    }

    /// When the request was taken from the available ring.
    pub fn popped(&self) -> Instant {
        self.popped
    }

    /// Index of the chain's first descriptor: unique among the requests in flight of a queue.
    pub fn head(&self) -> u16 {
        self.head
    }

    pub(super) fn redeem(self) -> u16 {
        let head = self.head;
        std::mem::forget(self);
        head
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        debug_assert!(
            std::thread::panicking(),
            "request with head {} was dropped without being completed",
            self.head
        );
        tracing::error!(
            head = self.head,
            "a request was dropped without being completed"
        );
    }
}
