//! Mounts that nobody else sees.

use std::io;

use rustix::mount::{MountPropagationFlags, mount_change};

use crate::sys::namespace;

/// Gives the calling thread, and all threads and processes that it starts from now on, a mount
/// namespace of its own. What is mounted there goes when the last of them ends, even by SIGKILL.
///
/// # Errors
/// Without the rights of root.
pub fn make_private() -> io::Result<()> {
    namespace::unshare_mounts()?;
    let flags = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    Ok(mount_change("/", flags)?)
}
