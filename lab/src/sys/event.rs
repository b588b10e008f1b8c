//! Event file descriptors: what kicks and interrupts are made of in vhost-user.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// An eventfd that can be waited for with a time limit.
#[derive(Debug)]
pub struct Event {
    eventfd: EventFd,
}

impl Event {
    /// Makes an eventfd with a count of zero.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            eventfd: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        })
    }

    /// Makes one that is full and blocks whoever signals it: what a front end must not be able to
    /// stop a daemon with.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn full_and_blocking() -> io::Result<Self> {
        let eventfd = EventFd::new(EFD_CLOEXEC)?;
        eventfd.write(u64::MAX - 1)?;
        Ok(Self { eventfd })
    }

    /// The same event.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn share(&self) -> io::Result<Self> {
        let eventfd = self.eventfd.try_clone()?;
        Ok(Self { eventfd })
    }

    /// Adds one to the count.
    ///
    /// # Errors
    /// When the count would overflow.
    pub fn signal(&self) -> io::Result<()> {
        self.eventfd.write(1)
    }

    /// Takes the count, which is zero when nothing was signalled since the last call.
    ///
    /// # Errors
    /// What `read(2)` reports, other than that there is nothing to read.
    pub fn take(&self) -> io::Result<u64> {
        match self.eventfd.read() {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Waits until something was signalled and takes the count; zero after `timeout`.
    ///
    /// # Errors
    /// What `poll(2)` or `read(2)` report.
    pub fn wait(&self, timeout: Duration) -> io::Result<u64> {
        let limit = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(self, PollFlags::IN)];
        match poll(&mut fds, Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(0),
            Ok(_) => self.take(),
            Err(error) => Err(error.into()),
        }
    }

    /// The descriptor in the form that the `vhost` crate takes.
    #[must_use]
    pub fn eventfd(&self) -> &EventFd {
        &self.eventfd
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as `self.eventfd` lives, which the
        // returned lifetime is bound to.
        unsafe { BorrowedFd::borrow_raw(self.eventfd.as_raw_fd()) }
    }
}
