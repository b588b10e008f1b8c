//! File descriptors that come from outside.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Takes over a descriptor that the parent process handed down (`--fd N`, `--tap-fd N`) and sets
/// close-on-exec on it.
///
/// # Errors
/// `EBADF` when no such descriptor is open, `EINVAL` for standard input, output and error.
pub fn adopt_fd(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= libc::STDERR_FILENO {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: fcntl with F_SETFD takes no pointer; a closed descriptor only gives EBADF.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open (checked above), and the caller names it as handed down to
    // this process by its parent: nothing else in the process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether `fd` has something to read now.
pub fn is_readable(fd: &impl AsRawFd) -> bool {
    let mut waiting = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd is passed and counted; a timeout of zero does not wait.
    let ready = unsafe { libc::poll(&raw mut waiting, 1, 0) };
    ready == 1 && waiting.revents & libc::POLLIN != 0
}

/// Signals an eventfd that a library gave up without closing it, and closes it. A thread of the library's may still
/// wait for the signal, if it could not start all of them.
pub(crate) fn end_abandoned(fd: RawFd) {
    // SAFETY: the caller names a descriptor that it handed to the library for good, and that the
    // library, being gone, uses no more.
    let event = unsafe { OwnedFd::from_raw_fd(fd) };
    let _ = rustix::io::write(&event, &1_u64.to_ne_bytes());
}
