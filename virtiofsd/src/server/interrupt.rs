//! `INTERRUPT`: requests that wait, and who may have them end early.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a request that waits, or takes long, is told meanwhile.
pub struct Interrupt {
    state: AtomicU8,
    /// Wakes the queue that holds the request.
    wake: Box<dyn Fn() + Send + Sync>,
}

const GO_ON: u8 = 0;
const HURRY: u8 = 1;
const END: u8 = 2;

impl Interrupt {
    /// For a request whose queue is woken by `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            state: AtomicU8::new(GO_ON),
            wake: Box::new(wake),
        }
    }

    /// The guest wants no more of it (`FUSE_INTERRUPT`).
    pub fn is_raised(&self) -> bool {
        self.state.load(Ordering::Acquire) == END
    }

    /// Whether what can be done in parts should end after the one at hand.
    pub fn is_hurried(&self) -> bool {
        self.state.load(Ordering::Acquire) != GO_ON
    }

    /// The queue stops: no part more than needed.
    pub fn hurry(&self) {
        self.state.fetch_max(HURRY, Ordering::AcqRel);
    }

    fn raise(&self) {
        self.state.store(END, Ordering::Release);
        (self.wake)();
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupt")
    }
}

/// Most interrupts kept for requests that have not been seen yet: the two come by different queues.
const EARLY: usize = 64;

/// The requests of all queues that wait or take long.
#[derive(Debug, Default)]
pub(super) struct Interrupts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<u64, Arc<Interrupt>>,
    early: VecDeque<u64>,
}

impl Interrupts {
    /// The request with this number waits from now on.
    pub(super) fn register(&self, unique: u64, interrupt: &Arc<Interrupt>) {
        let mut state = self.lock();
        if let Some(at) = state.early.iter().position(|early| *early == unique) {
            state.early.remove(at);
            interrupt.raise();
        }
        state.waiting.insert(unique, interrupt.clone());
    }

    /// It does not wait any more.
    pub(super) fn remove(&self, unique: u64, interrupt: &Arc<Interrupt>) {
        let mut state = self.lock();
        // A guest may have used the number twice.
        if state
            .waiting
            .get(&unique)
            .is_some_and(|known| Arc::ptr_eq(known, interrupt))
        {
            state.waiting.remove(&unique);
        }
    }

    /// The guest wants no more of that request.
    pub(super) fn interrupt(&self, unique: u64) {
        let mut state = self.lock();
        if let Some(waiting) = state.waiting.get(&unique) {
            return waiting.raise();
        }
        if state.early.len() == EARLY {
            state.early.pop_front();
        }
        state.early.push_back(unique);
    }

    /// The guest starts afresh, and counts its requests anew: what came early was about others.
    pub(super) fn forget_early(&self) {
        self.lock().early.clear();
    }

    /// Has all that waits look again.
    pub(super) fn wake_all(&self) {
        for waiting in self.lock().waiting.values() {
            (waiting.wake)();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_ends_its_request_also_when_it_came_first() {
        let interrupts = Interrupts::default();
        let [one, two] = [(), ()].map(|()| Arc::new(Interrupt::new(|| ())));
        interrupts.register(1, &one);
        interrupts.interrupt(2);
        interrupts.register(2, &two);
        assert!(!one.is_raised() && two.is_raised());
        interrupts.interrupt(1);
        assert!(one.is_raised() && one.is_hurried());
        interrupts.remove(1, &two);
        assert_eq!(interrupts.lock().waiting.len(), 2, "not its own");
        interrupts.remove(1, &one);
        interrupts.remove(2, &two);
        assert!(interrupts.lock().waiting.is_empty());
    }

    #[test]
    fn a_guest_that_interrupts_what_is_not_there_fills_nothing() {
        let interrupts = Interrupts::default();
        for unique in 0..10_000 {
            interrupts.interrupt(unique);
        }
        assert_eq!(interrupts.lock().early.len(), EARLY);
    }
}
