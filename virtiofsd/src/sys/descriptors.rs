//! File descriptors.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};

/// Closes `fd` and reports what close(2) says: a file system that writes back on close (NFS, for
/// one) tells of a failure there.
pub(crate) fn close_reporting(fd: OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor was owned, and its ownership ends with this call.
    if unsafe { libc::close(fd.into_raw_fd()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
