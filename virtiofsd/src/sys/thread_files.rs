//! Umask and current directory of one thread.
//!
//! Linux shares both between the threads of a process unless a thread leaves
//! (`unshare(CLONE_FS)`). A queue's thread leaves once: then it can create files under a guest
//! process's umask, which the host's kernel applies as it should (not at all in a directory with a
//! default ACL), and it can name any open file by a path relative to `/proc/self/fd`.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::Mode;
use rustix::thread::UnshareFlags;

thread_local! {
    static OWN_FILES: Cell<bool> = const { Cell::new(false) };
    static IN_DESCRIPTORS: Cell<bool> = const { Cell::new(false) };
    /// What [`use_umask`] has set.
    static UMASK: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Gives the calling thread a umask and a current directory of its own.
fn leave_shared_files() -> io::Result<()> {
    if !OWN_FILES.get() {
        // SAFETY: CLONE_FS only unshares umask, root and current directory, not descriptors.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        OWN_FILES.set(true);
    }
    Ok(())
}

/// Makes `descriptors` (an open `/proc/self/fd`) the calling thread's current directory: system
/// calls that take only a path can then name an open file by its number.
pub(crate) fn enter_descriptor_directory(descriptors: impl AsFd) -> io::Result<()> {
    if !IN_DESCRIPTORS.get() {
        leave_shared_files()?;
        rustix::process::fchdir(descriptors)?;
        IN_DESCRIPTORS.set(true);
    }
    Ok(())
}

/// Gives the calling thread this umask, until the next call. Whoever creates files calls it first.
pub(crate) fn use_umask(umask: u32) -> io::Result<()> {
    let umask = umask & 0o777;
    if UMASK.get() != Some(umask) {
        leave_shared_files()?;
        rustix::process::umask(Mode::from_raw_mode(umask));
        UMASK.set(Some(umask));
    }
    Ok(())
}
