//! One machine at a time on a host.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Error;

/// Not in the cache directory, which a user may have elsewhere.
const LOCK: &str = "/tmp/ringside-lab.lock";

/// The right to run a machine, given back when dropped or when the process ends.
#[derive(Debug)]
pub(super) struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits until no other machine runs, and says so.
    pub(super) fn take() -> Result<Self, Error> {
        Self::take_at(Path::new(LOCK)).map_err(Error::io("lock /tmp/ringside-lab.lock"))
    }

    fn take_at(path: &Path) -> io::Result<Self> {
        let mut lock = open(path)?;
        if lock.try_lock().is_err() {
            let mut holder = String::new();
            lock.read_to_string(&mut holder)?;
            eprintln!(
                "lab: waiting for the machine of process {}: there is one at a time on a host",
                holder.trim()
            );
            lock.lock()?;
        }
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { _lock: lock })
    }
}

/// Another user's file in a sticky directory can be opened, but not with `O_CREAT` (proc(5),
/// `protected_regular`).
fn open(path: &Path) -> io::Result<File> {
    let existing = File::options().read(true).write(true).open(path);
    existing.or_else(|_| {
        let lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)?;
        lock.set_permissions(Permissions::from_mode(0o666))?;
        Ok(lock)
    })
}
