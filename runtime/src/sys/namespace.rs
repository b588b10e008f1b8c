//! Namespaces of one thread.

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread into a network namespace of its own.
///
/// # Errors
/// When the kernel refuses: without `CAP_SYS_ADMIN`, as a rule.
pub(crate) fn enter_new_network() -> io::Result<()> {
    // SAFETY: CLONE_NEWNET unshares neither memory nor the descriptor table, which is what could
    // break the assumptions of other code in this process.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
}
