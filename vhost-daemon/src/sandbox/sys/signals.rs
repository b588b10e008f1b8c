//! Signals that a daemon is told to stop by, waited for.

use std::io;
use std::mem::MaybeUninit;

use rustix::process::Signal;

/// A set of signals.
pub(crate) struct SignalSet(libc::sigset_t);

/// A mask that was in force before.
pub(crate) struct FormerMask(libc::sigset_t);

impl SignalSet {
    /// Those that a daemon acts on, and the end of its child.
    pub(crate) fn of_a_daemon() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset fills the set in.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: filled in just now.
        let mut set = unsafe { set.assume_init() };
        let members = [
            Signal::TERM,
            Signal::INT,
            Signal::HUP,
            Signal::USR1,
            Signal::CHILD,
        ];
        for signal in members {
            // SAFETY: the set is initialised and the numbers are signals'.
            unsafe { libc::sigaddset(&raw mut set, signal.as_raw()) };
        }
        Self(set)
    }

    /// Holds them back on the calling thread.
    pub(crate) fn block(&self) -> io::Result<FormerMask> {
        let mut former = MaybeUninit::uninit();
        // SAFETY: both sets are ours; the former mask is filled in on success.
        let result = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const self.0, former.as_mut_ptr())
        };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        // SAFETY: the call succeeded.
        Ok(FormerMask(unsafe { former.assume_init() }))
    }

    /// Waits for one of them, which must be blocked; `None` if the wait was interrupted.
    pub(crate) fn wait(&self) -> Option<Signal> {
        let mut signal = 0;
        // SAFETY: set and result are ours.
        let result = unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
        if result == 0 {
            Signal::from_named_raw(signal)
        } else {
            None
        }
    }
}

impl FormerMask {
    /// Puts it in force again.
    pub(crate) fn restore(&self) -> io::Result<()> {
        // SAFETY: the set came from the kernel; the present mask is not asked for.
        let result = unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(result))
        }
    }
}
