//! The room where `unsafe` lives: system calls on guest memory.
#![allow(
    unsafe_code,
    reason = "readv and sendmsg take guest memory; every other module is safe"
)]

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, iovec, msghdr};
use smallvec::SmallVec;
use vhost_daemon::sys::Buffers;

/// Most ranges that one system call takes (`UIO_MAXIOV` of linux/uio.h).
const MAX_RANGES: usize = 1024;

/// Reads what a socket holds, `most` bytes at most, into `places` one behind the other: bytes read.
///
/// # Errors
/// readv(2)'s.
pub fn receive<'a>(
    socket: impl AsFd,
    places: impl IntoIterator<Item = &'a Buffers>,
    most: usize,
) -> io::Result<usize> {
    let mut ranges: SmallVec<[iovec; 32]> = SmallVec::new();
    let mut left = most;
    for range in places.into_iter().flat_map(Buffers::iovecs) {
        if left == 0 || ranges.len() == MAX_RANGES {
            break;
        }
        let iov_len = range.iov_len.min(left);
        left -= iov_len;
        ranges.push(iovec { iov_len, ..*range });
    }
    let count = c_int::try_from(ranges.len()).unwrap_or(c_int::MAX);
    // SAFETY: each range is, or begins, a range of `Buffers` that the caller has borrowed to this
    // function; they keep that memory mapped. `count` is the array's length.
    let read = unsafe { libc::readv(socket.as_fd().as_raw_fd(), ranges.as_ptr(), count) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Sends as much of `payload` as a socket takes without waiting: bytes sent.
///
/// # Errors
/// sendmsg(2)'s.
pub fn send(socket: impl AsFd, payload: &Buffers) -> io::Result<usize> {
    let ranges = payload.iovecs();
    // SAFETY: msghdr is a C struct of integers and pointers; all zero is a valid value.
    let mut message: msghdr = unsafe { zeroed() };
    message.msg_iov = ranges.as_ptr().cast_mut();
    message.msg_iovlen = ranges.len().min(MAX_RANGES);
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the ranges lie in guest memory that `payload` keeps mapped across the call, and the
    // kernel only reads them; there is no address and no control message.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
