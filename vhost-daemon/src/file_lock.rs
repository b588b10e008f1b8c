//! Files that one process has at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::patience::{Patience, lock_holder};

/// Who may have a file besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Nobody.
    Exclusive,
    /// Others that share it.
    Shared,
}

/// Locks `file`, opened as `path` (flock(2)), for as long as it, or a clone of it, is open. Waits for a process that
/// was killed to be gone ([`Patience`]): that also keeps a late write of its from landing on a newer one of ours.
///
/// # Errors
/// flock(2)'s; `WouldBlock` when another process keeps it.
pub fn lock(file: &File, path: &Path, lock: Lock) -> io::Result<()> {
    let operation = match lock {
        Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Lock::Shared => FlockOperation::NonBlockingLockShared,
    };
    let mut patience = Patience::default();
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if patience.lasts(&path.display(), lock_holder(file)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens or makes the file `path` (mode 0600) and [`lock`]s it for us alone.
///
/// # Errors
/// open(2)'s and [`lock`]'s.
pub fn open_locked(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
    lock(&file, path, Lock::Exclusive)?;
    Ok(file)
}
