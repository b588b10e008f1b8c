//! A time limit for a wait, as a descriptor that a queue's thread can sleep on.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A timer that becomes readable once after [`start`](Self::start).
pub(super) struct Patience(OwnedFd);

impl Patience {
    /// How long a frame that is longer than the buffers on hand may wait for more.
    pub(super) const LIMIT: Duration = Duration::from_millis(10);

    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// Runs from now on; takes back an end that was not noticed yet.
    pub(super) fn start(&self) -> io::Result<()> {
        let limit = Timespec::try_from(Self::LIMIT).map_err(io::Error::other)?;
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: limit,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

impl AsRawFd for Patience {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
