//! Bounds the time of a vhost-user request.
//!
//! The `vhost` crate retries a read that ran into the socket's own time limit for ever. So a
//! thread shuts the socket down when a request's time is up: the read then ends.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Default)]
struct State {
    deadline: Option<Instant>,
    fired: bool,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watchdog {
    pub(crate) fn guard(stream: UnixStream) -> Self {
        let shared = Arc::new(Shared::default());
        let watched = Arc::clone(&shared);
        Self {
            shared,
            thread: Some(thread::spawn(move || watch(&watched, &stream))),
        }
    }

    pub(crate) fn arm(&self, timeout: Duration) {
        self.change(|state| state.deadline = Some(Instant::now() + timeout));
    }

    /// Ends the watch over the current request; true when its time was up.
    pub(crate) fn disarm(&self) -> bool {
        self.change(|state| state.deadline = None);
        lock(&self.shared).fired
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        how(&mut lock(&self.shared));
        self.shared.changed.notify_one();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.change(|state| state.ended = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(shared: &Shared, stream: &UnixStream) {
    let mut state = lock(shared);
    while !state.ended {
        let now = Instant::now();
        state = match state.deadline {
            None => shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
            Some(deadline) if deadline > now => {
                let waited = shared.changed.wait_timeout(state, deadline - now);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            Some(_) => {
                let _ = stream.shutdown(Shutdown::Both);
                state.deadline = None;
                state.fired = true;
                state
            }
        };
    }
}
