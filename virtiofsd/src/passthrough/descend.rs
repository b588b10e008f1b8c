//! From a directory down by many names at once.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::errno;
use super::names::CONFINED;

/// Bytes of a path that a system call takes, its NUL included.
const PATH_MAX: usize = 4096;

/// Opens what `names`, the last one first, lead to; as many of them at once as a path can have.
///
/// # Errors
/// `ESTALE`: they lead nowhere any more.
pub(super) fn descend(start: BorrowedFd<'_>, names: Vec<CString>) -> io::Result<OwnedFd> {
    let mut names = names.into_iter().rev().peekable();
    let mut from: Option<OwnedFd> = None;
    loop {
        let mut path = Vec::new();
        while let Some(name) = names.next_if(|name| path.len() + name.count_bytes() + 2 <= PATH_MAX)
        {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
        }
        let on_the_way = if names.peek().is_some() {
            OFlags::DIRECTORY
        } else {
            OFlags::empty()
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | on_the_way;
        let directory = from.as_ref().map_or(start, AsFd::as_fd);
        let fd = rustix::fs::openat2(directory, path, flags, Mode::empty(), CONFINED)
            .map_err(|error| gone_if(error.into()))?;
        if names.peek().is_none() {
            return Ok(fd);
        }
        from = Some(fd);
    }
}

/// Names that lead nowhere any more make a node stale.
fn gone_if(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV) => errno(libc::ESTALE),
        _ => error,
    }
}
