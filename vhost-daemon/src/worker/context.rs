//! What a device's worker acts on: its queue and its io_uring.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::{Io, WatchId};
use crate::queue::{Chain, QueueError, RunningQueue, Token};
use crate::sys::Reactor;

/// Whether the kernel took an operation.
#[derive(Debug)]
pub enum Submission<T> {
    /// [`QueueWorker::completed`](super::QueueWorker::completed) will follow.
    Queued,
    /// The kernel refused it; the tag comes back with the error.
    Refused(T, io::Error),
}

/// A queue and the io_uring of the thread that owns it.
///
/// `T` is the tag that operations carry, see [`QueueWorker::Tag`](super::QueueWorker::Tag).
pub struct Context<T> {
    pub(super) queue: RunningQueue,
    pub(super) reactor: Reactor<T>,
    /// Set when the guest broke the ring: the queue takes no more requests until it is restarted.
    pub(super) broken: bool,
    name: String,
}

impl<T> Context<T> {
    /// How many requests one turn of the loop takes before it publishes and looks at completions
    /// again. Few enough that the guest works on the first answers while the next are made.
    pub const BATCH: usize = 16;

    pub(super) fn new(queue: RunningQueue, reactor: Reactor<T>, name: String) -> Self {
        Self {
            queue,
            reactor,
            broken: false,
            name,
        }
    }

    /// The next available request with a sound chain. Broken chains are counted, logged (rate
    /// limited) and given back to the guest with length 0; a broken ring stops the queue.
    ///
    /// `None` also after a batch of broken chains: a guest that keeps making more must not keep the
    /// worker from anything else.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<(Token, Chain)> {
        for _ in 0..Self::BATCH {
            if self.broken {
                break;
            }
            match self.queue.pop() {
                Ok(None) => break,
                Ok(Some((token, Ok(chain)))) => return Some((token, chain)),
                Ok(Some((token, Err(fault)))) => {
                    self.guest_fault(&fault);
                    self.complete(token, 0);
                }
                Err(fault) => self.break_queue(&fault),
            }
        }
        None
    }

    /// Gives the request popped last back to the available ring.
    pub fn unpop(&mut self, token: Token) {
        self.queue.unpop(token);
    }

    /// Completes a request: `written` bytes of its writable buffers were filled.
    pub fn complete(&mut self, token: Token, written: u32) {
        self.queue.complete(token, written);
    }

    /// Queues an operation for the kernel.
    pub fn push(&mut self, tag: T, io: Io) -> Submission<T> {
        match self.reactor.push(tag, io) {
            Ok(()) => Submission::Queued,
            Err((tag, error)) => Submission::Refused(tag, error),
        }
    }

    /// Registers files for [`IoFile::Registered`](super::IoFile::Registered).
    ///
    /// # Errors
    /// io_uring_register(2)'s.
    pub fn register_files(&self, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.reactor.register_files(files)
    }

    /// Watches a descriptor for input for as long as the queue runs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn watch(&mut self, fd: &impl AsRawFd) -> io::Result<WatchId> {
        self.reactor.watch(fd)
    }

    /// Watches a descriptor for input only from each [`await_input`](Self::await_input) to the one
    /// [`ready`](super::QueueWorker::ready) that follows.
    ///
    /// # Errors
    /// When there are too many.
    pub fn watch_on_demand(&mut self, fd: &impl AsRawFd) -> io::Result<WatchId> {
        self.reactor.watch_on_demand(fd)
    }

    /// [`ready`](super::QueueWorker::ready) follows once there is input, at once if there is already.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn await_input(&mut self, watch: WatchId) -> io::Result<()> {
        self.reactor.await_input(watch)
    }

    /// Has the next turn come after `delay` at the latest.
    pub fn wake_after(&mut self, delay: Duration) {
        if let Err(error) = self.reactor.wake_after(delay) {
            tracing::error!(queue = %self.name, %error, "a timer cannot be set");
        }
    }

    /// Counts and logs a request that broke the device's rules; the caller still answers it.
    pub fn guest_fault(&mut self, fault: &dyn std::fmt::Display) {
        let metrics = self.queue.metrics();
        metrics.guest_faults.add(1);
        metrics.errors.add(1);
        if let Some(suppressed) = metrics.limiter.permit() {
            tracing::warn!(queue = %self.name, %fault, suppressed, "the guest broke a rule");
        }
    }

    /// Counts and logs a back-end error that a request was answered with.
    pub fn backend_error(&mut self, what: &str, error: &io::Error) {
        let metrics = self.queue.metrics();
        metrics.errors.add(1);
        let about = (what, error.kind(), error.raw_os_error());
        if let Some(suppressed) = metrics.limiter.permit_about(about) {
            tracing::warn!(queue = %self.name, what, %error, suppressed, "answered with an error");
        }
    }

    /// The queue.
    pub fn queue(&mut self) -> &mut RunningQueue {
        &mut self.queue
    }

    /// Shows the guest what was completed, unless its memory is lost: what was read from there or
    /// written to it means nothing then, and the queue stops.
    pub(super) fn publish(&mut self) {
        if self.queue.memory().is_lost() {
            self.break_queue(&QueueError::MemoryLost);
        } else {
            self.queue.publish();
        }
    }

    pub(super) fn break_queue(&mut self, fault: &QueueError) {
        if !self.broken {
            self.broken = true;
            // Zeroes are in the place of a ring that is lost: they look like faults of the guest's.
            let fault = match self.queue.memory().is_lost() {
                true => &QueueError::MemoryLost,
                false => fault,
            };
            let metrics = self.queue.metrics();
            metrics.guest_faults.add(1);
            if let Some(suppressed) = metrics.stop_limiter.permit() {
                let queue = &self.name;
                tracing::error!(queue, %fault, suppressed, "queue stopped until it is set up again");
            }
        }
    }
}
