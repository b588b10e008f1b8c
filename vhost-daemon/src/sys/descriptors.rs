//! File descriptors that come from outside.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};

use vmm_sys_util::event::EventNotifier;

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

/// Makes a notifier out of an eventfd (or pipe) that the front end sent.
pub fn eventfd_notifier(file: File) -> EventNotifier {
    // SAFETY: `file` is the sole owner of its descriptor and gives it up here.
    unsafe { EventNotifier::from_raw_fd(file.into_raw_fd()) }
}
