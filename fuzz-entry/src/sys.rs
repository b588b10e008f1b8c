//! Leaving the mount namespace.
#![allow(unsafe_code, reason = "unshare(2)")]

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives the calling thread a mount namespace of its own.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS, and CLONE_FS that it implies, give this thread a root and a working directory of its own
    // that are the same places as before; no open descriptor changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(())
}
