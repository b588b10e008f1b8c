//! Clearing set-user-ID and set-group-ID bits when content changes (`FUSE_HANDLE_KILLPRIV_V2`).
//!
//! The host's kernel does it by itself, in the same step as the change, for a thread that may not
//! keep the bits. So such a thread is made, for the time of the system call.

use std::io;
use std::os::fd::AsFd;

use crate::sys::{FsetidGuard, without_fsetid};

/// Whether a change of content clears a bit of this mode. A set-group-ID bit without the group's
/// execute bit once meant mandatory locking, and stays.
fn clears(mode: u32) -> bool {
    mode & libc::S_ISUID != 0
        || mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP
}

/// Whether a change of the content of `file` clears a bit of its mode.
pub(super) fn has_set_id(file: impl AsFd) -> io::Result<bool> {
    Ok(clears(rustix::fs::fstat(file)?.st_mode))
}

/// Holds what makes the next change of `file`'s content on this thread clear the bits; `None` where
/// there is nothing to clear.
pub(super) fn clearing_set_id(file: impl AsFd) -> io::Result<Option<FsetidGuard>> {
    let status = rustix::fs::fstat(file)?;
    if clears(status.st_mode) {
        without_fsetid(status.st_gid)
    } else {
        Ok(None)
    }
}
