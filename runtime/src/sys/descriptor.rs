//! Descriptors that a child must not have.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What comes after standard input, output and error.
const FIRST: libc::c_uint = 3;

/// Keeps every descriptor but the standard ones from the programs that this process starts: the caller may have
/// left some open that must not be held for as long as a container runs.
pub(crate) fn close_on_exec() -> io::Result<()> {
    // SAFETY: with this flag nothing is closed; no descriptor changes its meaning in this process.
    let result = unsafe {
        libc::close_range(
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC.cast_signed(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives up this session's controlling terminal without hanging it up (`TIOCNOTTY` in ioctl_tty(2)).
///
/// When a session leader ends while it has one, the kernel throws away what was written and not yet read.
pub(crate) fn give_up_terminal(terminal: impl AsFd) {
    // SAFETY: the request takes no argument. That this is not our terminal is a failure without effect.
    let _ = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCNOTTY) };
}
