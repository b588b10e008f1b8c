//! How the control thread reaches a running worker.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Pid;

use crate::queue::Call;
use crate::sys::interrupt_thread;
use crate::wakeup::Wakeup;

/// The mailbox of one run of a worker. The worker looks at two flags in each turn of its loop and
/// takes no lock unless one is set.
pub(crate) struct StopFlag {
    raised: AtomicBool,
    call_changed: AtomicBool,
    new_call: Mutex<Option<Option<Call>>>,
    wakeup: Wakeup,
    kick: Option<File>,
    /// The worker's.
    thread: Pid,
}

impl StopFlag {
    /// Of the calling thread.
    pub(crate) fn new(kick: Option<File>) -> io::Result<Self> {
        Ok(Self {
            raised: AtomicBool::new(false),
            call_changed: AtomicBool::new(false),
            new_call: Mutex::new(None),
            wakeup: Wakeup::new()?,
            kick,
            thread: rustix::thread::gettid(),
        })
    }

    /// Tells the worker to stop and wakes it.
    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.wakeup.wake();
    }

    /// Has a system call in which the worker waits return.
    pub(crate) fn interrupt(&self) {
        interrupt_thread(self.thread);
    }

    /// Whether the worker is to stop.
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Sleeps until the control thread raises the flag.
    pub(crate) fn wait_until_raised(&self) {
        while !self.is_raised() {
            self.wait(None);
        }
    }

    /// Sleeps until the control thread raises the flag or has other news, or that long.
    pub(crate) fn wait_until_raised_within(&self, time: Duration) {
        if !self.is_raised() {
            self.wait(Timespec::try_from(time).ok().as_ref());
        }
    }

    fn wait(&self, time: Option<&Timespec>) {
        let mut waiting = [PollFd::new(&self.wakeup, PollFlags::IN)];
        if rustix::event::poll(&mut waiting, time).is_ok() {
            // Other news (a new call descriptor) wake up as well: take the count.
            self.wakeup.clear();
        }
    }

    /// Gives the worker another call descriptor, or none.
    pub(crate) fn replace_call(&self, call: Option<Call>) {
        let mut new_call = self.new_call.lock().unwrap_or_else(PoisonError::into_inner);
        *new_call = Some(call);
        // Set under the lock, as it is cleared: value and flag change together.
        self.call_changed.store(true, Ordering::Release);
        drop(new_call);
        self.wakeup.wake();
    }

    /// The call descriptor that [`replace_call`](Self::replace_call) left, if it was called since.
    pub(crate) fn take_new_call(&self) -> Option<Option<Call>> {
        if !self.call_changed.load(Ordering::Relaxed) {
            return None;
        }
        let mut new_call = self.new_call.lock().unwrap_or_else(PoisonError::into_inner);
        self.call_changed.store(false, Ordering::Relaxed);
        new_call.take()
    }

    /// Readable once the worker has something to look at.
    pub(crate) fn wakeup(&self) -> &Wakeup {
        &self.wakeup
    }

    /// The front end's kick descriptor.
    pub(crate) fn kick(&self) -> Option<&File> {
        self.kick.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Signalling;
    use std::sync::Arc;

    #[test]
    fn the_last_of_many_call_descriptors_arrives() {
        for _ in 0..200 {
            let mailbox = Arc::new(StopFlag::new(None).unwrap());
            let control = mailbox.clone();
            let swaps = std::thread::spawn(move || {
                for _ in 0..2 {
                    let flags = rustix::event::EventfdFlags::NONBLOCK;
                    let file = rustix::event::eventfd(0, flags).unwrap().into();
                    control.replace_call(Some(Call::new(file, &Signalling::default()).unwrap()));
                }
            });
            let mut last = None;
            while !swaps.is_finished() {
                last = mailbox.take_new_call().or(last);
                std::thread::yield_now();
            }
            swaps.join().unwrap();
            last = mailbox.take_new_call().or(last);
            assert!(
                matches!(last, Some(Some(_))),
                "the queue is left without a call descriptor"
            );
        }
    }
}
