//! Who is at the other end of a unix socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The user who made the other end (unix(7), `SO_PEERCRED`), by our own namespace's numbers.
///
/// rustix's call wants to know the process, too, which has no number for us if it is in another pid namespace:
/// then it fails.
pub fn peer_user(socket: BorrowedFd<'_>) -> io::Result<u32> {
    peer(socket).map(|peer| peer.uid)
}

/// The process that made the other end, or listens there, if it has a number for us.
pub fn peer_process(socket: BorrowedFd<'_>) -> Option<i32> {
    let process = peer(socket).ok()?.pid;
    (process > 0).then_some(process)
}

fn peer(socket: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut len = libc::socklen_t::try_from(size_of_val(&peer)).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes to `peer`, which is as long and holds any bytes.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    if done == 0 {
        Ok(peer)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_other_end_is_ours() {
        let (one, _other) = UnixStream::pair().unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(peer_user(one.as_fd()).unwrap(), own);
        let process = std::process::id().cast_signed();
        assert_eq!(peer_process(one.as_fd()), Some(process));
    }
}
