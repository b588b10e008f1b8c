//! Locks of ranges, held by open files (fcntl(2), `F_OFD_SETLK`).
#![allow(unsafe_code, reason = "fcntl(2)")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    None,
}

fn range(kind: Kind, start: i64, len: i64) -> libc::flock {
    let kind = match kind {
        Kind::Read => libc::F_RDLCK,
        Kind::Write => libc::F_WRLCK,
        Kind::None => libc::F_UNLCK,
    };
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

/// Locks or unlocks, without waiting.
pub(crate) fn lock(file: &File, kind: Kind, start: i64, len: i64) -> io::Result<()> {
    let range = range(kind, start, len);
    // SAFETY: the structure that this command takes, alive for the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What stands in the way of a lock: its type, start and length.
pub(crate) fn holder(file: &File, kind: Kind, start: i64, len: i64) -> Option<(i16, i64, i64)> {
    let mut range = range(kind, start, len);
    // SAFETY: the structure that this command takes and fills, alive for the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut range) };
    let found = done == 0 && i32::from(range.l_type) != libc::F_UNLCK;
    found.then_some((range.l_type, range.l_start, range.l_len))
}
