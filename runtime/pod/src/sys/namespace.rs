//! A mount namespace of this process's own.

use std::io;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread into a mount namespace of its own, which goes on seeing what the host
/// mounts and unmounts; what is mounted here the host does not see, and it is gone with the last
/// process in here.
///
/// Call it before any other thread is started: those that are there already stay outside.
///
/// # Errors
/// When the kernel refuses: without `CAP_SYS_ADMIN`, as a rule.
pub fn enter_mount_namespace() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS (with the CLONE_FS that it implies) unshares neither memory nor the
    // descriptor table, which is what could break the assumptions of other code in this process.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    Ok(())
}
