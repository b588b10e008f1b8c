//! Leaving namespaces.

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Puts the calling thread into a new network namespace; other threads stay where they are.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: only CLONE_NEWNET is given. Unlike CLONE_FILES and CLONE_FS it changes nothing
    // that other threads' safety rests on: no open descriptor, no path.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Puts the calling thread into a new mount namespace; other threads stay where they are.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS, and CLONE_FS that it implies, give this thread a root and a working
    // directory of its own that are the same places as before; no open descriptor changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(())
}
