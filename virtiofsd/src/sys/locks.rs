//! Locks of an open file description (fcntl(2), "Open file description locks").

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A lock on a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OfdLock {
    /// `F_RDLCK`, `F_WRLCK`, `F_UNLCK`.
    pub(crate) kind: i32,
    /// First byte.
    pub(crate) start: i64,
    /// Bytes; 0: to the end, wherever that is by then.
    pub(crate) len: i64,
}

fn fcntl(fd: impl AsFd, command: libc::c_int, lock: OfdLock) -> io::Result<OfdLock> {
    let mut lock = libc::flock {
        l_type: lock
            .kind
            .try_into()
            .map_err(|_| io::ErrorKind::InvalidInput)?,
        // SEEK_SET is 0.
        l_whence: 0,
        l_start: lock.start,
        l_len: lock.len,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open while borrowed, and both commands take a `struct flock`, which
    // lives for the call.
    if unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, &raw mut lock) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(OfdLock {
        kind: lock.l_type.into(),
        start: lock.l_start,
        len: lock.l_len,
    })
}

/// Sets a lock of `fd`'s description, or takes it back.
///
/// # Errors
/// `EAGAIN`: someone else's is in the way.
pub(crate) fn set_ofd_lock(fd: impl AsFd, lock: OfdLock) -> io::Result<()> {
    fcntl(fd, libc::F_OFD_SETLK, lock).map(drop)
}

/// The first lock of someone else's that is in the way of `lock`.
pub(crate) fn ofd_lock_in_the_way(fd: impl AsFd, lock: OfdLock) -> io::Result<Option<OfdLock>> {
    let found = fcntl(fd, libc::F_OFD_GETLK, lock)?;
    Ok((found.kind != libc::F_UNLCK).then_some(found))
}
