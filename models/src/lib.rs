//! The places where two sides look at each other without a lock before one of them sleeps, as models for
//! [loom](https://docs.rs/loom): every order of loads and stores that the memory model allows is tried, and a wake-up that
//! can be lost is a deadlock. `make loom` runs them.
//!
//! The loads, stores, their orderings and the fence are those of `sys::split_ring`, `queue::running`,
//! `worker::run` and `session::stop` of vhost-daemon, in their order; what decides is the code's own
//! `event_passed`. The driver's side is as virtio 1.2, 2.7.7 and 2.7.13, has it.

#![cfg(test)]

#[path = "../../vhost-daemon/src/queue/event.rs"]
mod event;

use loom::sync::atomic::{AtomicBool, AtomicU16, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use event::event_passed;

/// What each side does in all: two, so that a second time follows a sleep.
const ROUNDS: u16 = 2;

/// An eventfd.
#[derive(Default)]
struct Event {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Event {
    fn signal(&self) {
        *self.count.lock().unwrap() += 1;
        self.changed.notify_one();
    }

    /// Waits until it is signalled, and takes the count.
    fn wait(&self) {
        let mut count = self.count.lock().unwrap();
        while *count == 0 {
            count = self.changed.wait(count).unwrap();
        }
        *count = 0;
    }
}

/// One index of a ring, what is asked for about it, and the descriptor by which that is told.
struct Half {
    index: AtomicU16,
    event: AtomicU16,
    flags: AtomicU16,
    descriptor: Event,
    /// `VIRTIO_F_EVENT_IDX`
    event_idx: bool,
    /// The fence between one's own store and a look at the other's; a model without it must fail.
    fenced: bool,
}

/// `VRING_USED_F_NO_NOTIFY`, `VRING_AVAIL_F_NO_INTERRUPT`
const NONE_WANTED: u16 = 1;

impl Half {
    fn new(event_idx: bool, fenced: bool) -> Arc<Self> {
        Arc::new(Self {
            index: AtomicU16::new(0),
            // Nothing is asked for yet.
            event: AtomicU16::new(u16::MAX),
            flags: AtomicU16::new(NONE_WANTED),
            descriptor: Event::default(),
            event_idx,
            fenced,
        })
    }

    fn barrier(&self) {
        if self.fenced {
            fence(Ordering::SeqCst);
        }
    }

    /// `RunningQueue::publish`, or a driver that makes a chain available.
    fn publish(&self, before: u16, now: u16) {
        self.index.store(now, Ordering::Release);
        self.barrier();
        let wanted = if self.event_idx {
            event_passed(self.event.load(Ordering::Relaxed), before, now)
        } else {
            self.flags.load(Ordering::Relaxed) & NONE_WANTED == 0
        };
        if wanted {
            self.descriptor.signal();
        }
    }

    /// `RunningQueue::enable_kicks`, or a driver that wants interrupts again: whether there is more at once.
    fn ask(&self, seen: u16) -> bool {
        if self.event_idx {
            self.event.store(seen, Ordering::Relaxed);
        } else {
            self.flags.store(0, Ordering::Relaxed);
        }
        self.barrier();
        self.index.load(Ordering::Acquire) != seen
    }

    /// `worker::run`'s turns, or a driver's: takes what there is, and sleeps when there is nothing.
    fn take_all(&self) {
        let mut seen = 0;
        while seen < ROUNDS {
            let now = self.index.load(Ordering::Acquire);
            if now != seen {
                assert!(now.wrapping_sub(seen) <= ROUNDS);
                seen = now;
                continue;
            }
            if self.ask(seen) {
                continue;
            }
            self.descriptor.wait();
            if !self.event_idx {
                self.flags.store(NONE_WANTED, Ordering::Relaxed);
            }
        }
    }
}

fn nobody_sleeps_for_ever(event_idx: bool, fenced: bool) {
    loom::model(move || {
        let half = Half::new(event_idx, fenced);
        let sleeper = half.clone();
        let taking = thread::spawn(move || sleeper.take_all());
        for round in 0..ROUNDS {
            half.publish(round, round + 1);
        }
        taking.join().unwrap();
    });
}

#[test]
fn with_event_indexes_no_wake_up_is_lost() {
    nobody_sleeps_for_ever(true, true);
}

#[test]
fn with_flags_no_wake_up_is_lost() {
    nobody_sleeps_for_ever(false, true);
}

/// One look at each other: whether in some order the sleeper sees nothing and is not told either.
fn can_miss(event_idx: bool, fenced: bool) -> bool {
    let missed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = missed.clone();
    loom::model(move || {
        let half = Half::new(event_idx, fenced);
        let sleeper = half.clone();
        let looking = thread::spawn(move || sleeper.ask(0));
        half.publish(0, 1);
        let more = looking.join().unwrap();
        if !more && *half.descriptor.count.lock().unwrap() == 0 {
            seen.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    missed.load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn without_the_fence_the_models_find_what_would_be_missed() {
    for event_idx in [true, false] {
        assert!(!can_miss(event_idx, true));
        assert!(can_miss(event_idx, false), "the model finds no fault");
    }
}

/// `session::stop::StopFlag`.
#[derive(Default)]
struct Mailbox {
    raised: AtomicBool,
    call_changed: AtomicBool,
    new_call: Mutex<Option<u32>>,
    wakeup: Event,
}

impl Mailbox {
    fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.wakeup.signal();
    }

    fn replace_call(&self, call: u32) {
        let mut new_call = self.new_call.lock().unwrap();
        *new_call = Some(call);
        self.call_changed.store(true, Ordering::Release);
        drop(new_call);
        self.wakeup.signal();
    }

    fn take_new_call(&self) -> Option<u32> {
        if !self.call_changed.load(Ordering::Relaxed) {
            return None;
        }
        let mut new_call = self.new_call.lock().unwrap();
        self.call_changed.store(false, Ordering::Relaxed);
        new_call.take()
    }
}

#[test]
fn the_last_call_descriptor_and_the_stop_arrive() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::default());
        let control = mailbox.clone();
        let controlling = thread::spawn(move || {
            control.replace_call(1);
            control.replace_call(2);
            control.raise();
        });
        let mut call = 0;
        while !mailbox.raised.load(Ordering::Acquire) {
            if let Some(new) = mailbox.take_new_call() {
                assert!(new > call, "an older one came after a newer one");
                call = new;
                continue;
            }
            mailbox.wakeup.wait();
        }
        controlling.join().unwrap();
        let last = mailbox.take_new_call().unwrap_or(call);
        assert_eq!(last, 2);
    });
}
