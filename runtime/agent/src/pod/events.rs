//! What happened and the host has not been told.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringside_protocol::agent::{Event, Exit, OutOfMemory, event::What};

/// Events told in one answer.
const MOST_AT_ONCE: usize = 256;

/// Events in order, numbered from 1.
#[derive(Debug, Default)]
pub(super) struct Events {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Event>,
    last: u64,
    /// Raised by each caller: an older one that still waits goes home.
    caller: u64,
}

impl Events {
    pub(super) fn exited(&self, exit: Exit) {
        self.push(What::Exit(exit));
    }

    /// One of these for each container waits at a time: how many there are is the container's choice.
    pub(super) fn out_of_memory(&self, container: &str) {
        let told = |event: &Event| matches!(&event.what, Some(What::OutOfMemory(there)) if there.container == container);
        if self.lock().waiting.iter().any(told) {
            return;
        }
        let mut event = OutOfMemory::new();
        event.container = container.to_owned();
        self.push(What::OutOfMemory(event));
    }

    fn push(&self, what: What) {
        let mut state = self.lock();
        state.last += 1;
        let mut event = Event::new();
        event.number = state.last;
        event.what = Some(what);
        state.waiting.push_back(event);
        self.changed.notify_all();
    }

    /// Forgets all up to `after` and returns what came later, waiting for it until `patience` is over or
    /// somebody else calls.
    pub(super) fn after(&self, after: u64, patience: Duration) -> Vec<Event> {
        let deadline = Instant::now().checked_add(patience);
        let mut state = self.lock();
        state.caller += 1;
        let me = state.caller;
        self.changed.notify_all();
        while state
            .waiting
            .front()
            .is_some_and(|event| event.number <= after)
        {
            state.waiting.pop_front();
        }
        while state.waiting.is_empty() && state.caller == me {
            let left = deadline.map_or(patience, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.caller != me {
            return Vec::new();
        }
        state.waiting.iter().take(MOST_AT_ONCE).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn exit(code: u32) -> Exit {
        let mut exit = Exit::new();
        exit.code = code;
        exit
    }

    fn numbers(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn events_stay_until_they_are_acknowledged() {
        let events = Events::default();
        for code in 0..3 {
            events.exited(exit(code));
        }
        assert_eq!(numbers(&events.after(0, LONG)), [1, 2, 3]);
        assert_eq!(numbers(&events.after(0, LONG)), [1, 2, 3]);
        assert_eq!(numbers(&events.after(2, LONG)), [3]);
        assert!(events.after(3, Duration::ZERO).is_empty());
        events.exited(exit(9));
        assert_eq!(numbers(&events.after(3, LONG)), [4]);
    }

    #[test]
    fn out_of_memory_is_told_once_until_it_is_known() {
        let events = Events::default();
        for _ in 0..1000 {
            events.out_of_memory("a");
        }
        events.out_of_memory("b");
        assert_eq!(numbers(&events.after(0, LONG)), [1, 2]);
        assert!(events.after(2, Duration::ZERO).is_empty());
        events.out_of_memory("a");
        assert_eq!(numbers(&events.after(2, LONG)), [3]);
    }

    #[test]
    fn a_waiting_caller_hears_at_once() {
        let events = Arc::new(Events::default());
        let waiting = {
            let events = Arc::clone(&events);
            thread::spawn(move || events.after(0, LONG))
        };
        thread::sleep(Duration::from_millis(20));
        events.exited(exit(7));
        assert_eq!(numbers(&waiting.join().unwrap()), [1]);
    }

    #[test]
    fn a_later_caller_sends_an_earlier_one_home() {
        let events = Arc::new(Events::default());
        let start = Instant::now();
        let earlier = {
            let events = Arc::clone(&events);
            thread::spawn(move || events.after(0, LONG))
        };
        // A busy host may start the thread much later: who calls first is not left to it.
        while events.lock().caller == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(events.after(0, Duration::from_millis(20)).is_empty());
        assert!(earlier.join().unwrap().is_empty());
        assert!(start.elapsed() < LONG);
    }
}
