//! What a processor's thread is told, and what it answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the machine wants of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Run,
    Pause,
    Stop,
}

/// What a waiting thread is asked to do with its processor.
pub(super) type Job<P> = Box<dyn FnOnce(&mut P) + Send>;

struct State<P> {
    wanted: Wanted,
    /// The thread is outside the guest and waits, or has ended.
    out: bool,
    job: Option<Job<P>>,
}

/// Starts paused.
pub(super) struct Control<P> {
    /// The thread must look at the state. Spares a lock at each exit.
    attention: AtomicBool,
    state: Mutex<State<P>>,
    changed: Condvar,
}

impl<P> Default for Control<P> {
    fn default() -> Self {
        Self {
            attention: AtomicBool::new(true),
            state: Mutex::new(State {
                wanted: Wanted::Pause,
                out: false,
                job: None,
            }),
            changed: Condvar::new(),
        }
    }
}

impl<P> Control<P> {
    pub(super) fn want(&self, wanted: Wanted) {
        let mut state = self.state();
        state.wanted = wanted;
        if wanted == Wanted::Run {
            // The thread is in again as soon as it sees this; do not let a pause that follows see it out.
            state.out = false;
        }
        self.attention.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Whether the thread came out within `limit`.
    pub(super) fn is_out(&self, limit: Duration) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.state(), limit, |state| !state.out)
            .unwrap_or_else(PoisonError::into_inner);
        waited.0.out
    }

    /// Leaves a job for a thread that is paused.
    pub(super) fn ask(&self, job: Job<P>) {
        self.state().job = Some(job);
        self.changed.notify_all();
    }

    /// Whether the thread has to ask if it [may run](Self::may_run).
    pub(super) fn is_called(&self) -> bool {
        self.attention.load(Ordering::Acquire)
    }

    /// The thread asks; it waits here while it is paused, and does what it is asked meanwhile. False: end.
    pub(super) fn may_run(&self, processor: &mut P) -> bool {
        if !self.is_called() {
            return true;
        }
        let mut state = self.state();
        while state.wanted == Wanted::Pause {
            state.out = true;
            self.changed.notify_all();
            if let Some(job) = state.job.take() {
                drop(state);
                job(processor);
                state = self.state();
                continue;
            }
            state = self.wait(state);
        }
        if state.wanted == Wanted::Run {
            state.out = false;
            self.attention.store(false, Ordering::Release);
        }
        state.wanted == Wanted::Run
    }

    /// The thread cannot go on: waits for the end.
    pub(super) fn hold(&self) {
        let mut state = self.state();
        while state.wanted != Wanted::Stop {
            state.out = true;
            // Whoever waits for its answer learns that there is none.
            state.job = None;
            self.changed.notify_all();
            state = self.wait(state);
        }
    }

    /// Says that the thread is out when it ends, in whatever way.
    pub(super) fn out_at_the_end(&self) -> impl Drop + '_ {
        struct Out<'a, P>(&'a Control<P>);
        impl<P> Drop for Out<'_, P> {
            fn drop(&mut self) {
                let mut state = self.0.state();
                state.out = true;
                // Whoever waits for its answer learns that there is none.
                state.job = None;
                drop(state);
                self.0.changed.notify_all();
            }
        }
        Out(self)
    }

    fn state(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<P>>) -> MutexGuard<'a, State<P>> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P> std::fmt::Debug for Control<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let wanted = self.state().wanted;
        f.debug_struct("Control").field("wanted", &wanted).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_thread_runs_pauses_and_ends_as_told() {
        let control = Arc::new(Control::<usize>::default());
        let turns = Arc::new(AtomicUsize::new(0));
        let thread = thread::spawn({
            let (control, turns) = (control.clone(), turns.clone());
            move || {
                let _out = control.out_at_the_end();
                let mut asked = 0;
                while control.may_run(&mut asked) {
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        assert!(control.is_out(SOON));
        assert_eq!(turns.load(Ordering::Relaxed), 0);
        for _ in 0..100 {
            control.want(Wanted::Run);
            control.want(Wanted::Pause);
            assert!(control.is_out(SOON));
            let counted = turns.load(Ordering::Relaxed);
            thread::yield_now();
            assert_eq!(turns.load(Ordering::Relaxed), counted);
        }
        for expected in 1..=3 {
            let (sender, receiver) = channel();
            control.ask(Box::new(move |asked| {
                *asked += 1;
                sender.send(*asked).unwrap();
            }));
            assert_eq!(receiver.recv(), Ok(expected));
        }
        control.want(Wanted::Stop);
        thread.join().unwrap();
        assert!(control.is_out(SOON));
    }

    #[test]
    fn a_thread_that_cannot_go_on_is_asked_in_vain_and_holds_nobody_up() {
        let control = Arc::new(Control::<usize>::default());
        let own = control.clone();
        let thread = thread::spawn(move || own.hold());
        for wanted in [Wanted::Pause, Wanted::Run] {
            control.want(wanted);
            assert!(control.is_out(SOON));
            let (sender, receiver) = channel();
            control.ask(Box::new(move |asked| sender.send(*asked).unwrap()));
            let answer = receiver.recv_timeout(SOON);
            assert_eq!(answer, Err(RecvTimeoutError::Disconnected));
        }
        control.want(Wanted::Stop);
        thread.join().unwrap();
    }
}
