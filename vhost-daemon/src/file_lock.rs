//! Files that one process has at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How long to wait for another process to give a file up. One that was killed holds its locks until the
/// kernel has finished its last operations, which takes seconds where the host is short of time or its disk
/// is slow.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who may have a file besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Nobody.
    Exclusive,
    /// Others that share it.
    Shared,
}

/// Locks `file` (flock(2)) for as long as it, or a clone of it, is open. Waits for a process that is about to
/// be gone: that also keeps a late write of its from landing on a newer one of ours.
///
/// # Errors
/// flock(2)'s; `WouldBlock` when another process still has it after ten seconds.
pub fn lock(file: impl AsFd, lock: Lock) -> io::Result<()> {
    let operation = match lock {
        Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Lock::Shared => FlockOperation::NonBlockingLockShared,
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(2));
            }
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
    lock(&file, Lock::Exclusive)?;
    Ok(file)
}
