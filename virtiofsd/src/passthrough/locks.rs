//! Locks of the guest's processes, held on the host: so they hold between guests, and on the host.
//!
//! `fcntl` locks belong to an owner, a process of the guest's for its kernel. Each owner's locks on a
//! file are open-file-description locks (fcntl(2), `F_OFD_SETLK`) of a description of their own: those
//! conflict with each other and with the host's processes' locks, and go all at once when the
//! description is closed. `flock` locks belong to the guest's open file, which is a handle, and so to
//! the handle's own description.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuse_backend_rs::abi::fuse_abi::LK_FLOCK;
use fuse_backend_rs::api::filesystem::FileLock;
use rustix::fs::{FlockOperation, OFlags};

use super::budget::Counted;
use super::handles::Handle;
use super::{Passthrough, errno};
use crate::sys::{OfdLock, ofd_lock_in_the_way, set_ofd_lock};

const READ: u32 = libc::F_RDLCK.cast_unsigned();
const WRITE: u32 = libc::F_WRLCK.cast_unsigned();
const NONE: u32 = libc::F_UNLCK.cast_unsigned();

/// The end of a range that has none (`OFFSET_MAX`).
const ENDLESS: u64 = i64::MAX.cast_unsigned();

/// One owner's locks on one file.
#[derive(Debug)]
struct Owner {
    description: File,
    /// Through which the first lock came. It outlives the locks, except those of an owner that is
    /// the open file itself.
    handle: u64,
    /// Who locked last, for the guest's eyes.
    pid: AtomicU32,
    _counted: Counted,
}

/// `fcntl` locks by node and owner.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<(u64, u64), Arc<Owner>>>);

impl Locks {
    fn lock(&self) -> MutexGuard<'_, HashMap<(u64, u64), Arc<Owner>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, inode: u64, owner: u64) -> Option<Arc<Owner>> {
        self.lock().get(&(inode, owner)).cloned()
    }

    /// The owner has closed a descriptor of the file: by POSIX its locks go.
    pub(super) fn closed_by(&self, inode: u64, owner: u64) {
        let gone = self.lock().remove(&(inode, owner));
        // The description closes after the map's lock.
        drop(gone);
    }

    /// The handle goes, and with it the locks of owners that came by it.
    pub(super) fn released(&self, inode: u64, handle: u64) {
        let mut owners = self.lock();
        let gone: Vec<_> = owners
            .extract_if(|(node, _), owner| *node == inode && owner.handle == handle)
            .collect();
        drop(owners);
        drop(gone);
    }

    /// All locks go.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.lock());
        drop(all);
    }
}

impl Passthrough {
    fn serves_lock(&self, flags: u32) -> io::Result<()> {
        let whole = flags & LK_FLOCK != 0;
        let served = if whole {
            self.config.flock
        } else {
            self.config.posix_lock
        };
        served.then_some(()).ok_or_else(|| errno(libc::ENOSYS))
    }

    /// Sets a lock, or takes it back.
    ///
    /// # Errors
    /// `EAGAIN`: someone else's is in the way.
    pub(super) fn set_lock(
        &self,
        (inode, handle): (u64, u64),
        owner: u64,
        lock: FileLock,
        flags: u32,
    ) -> io::Result<()> {
        self.serves_lock(flags)?;
        let open = self.handles.file(inode, handle)?;
        if flags & LK_FLOCK != 0 {
            return set_whole(&open, lock.lock_type);
        }
        let range = range_of(&lock)?;
        let owned = match self.locks.of(inode, owner) {
            Some(owned) => owned,
            None if lock.lock_type == NONE => return Ok(()),
            None => self.new_owner((inode, handle), owner, &open)?,
        };
        set_ofd_lock(&owned.description, range)?;
        owned.pid.store(lock.pid, Ordering::Relaxed);
        Ok(())
    }

    fn new_owner(
        &self,
        (inode, handle): (u64, u64),
        owner: u64,
        open: &Handle,
    ) -> io::Result<Arc<Owner>> {
        let no_room = |_| errno(libc::ENOLCK);
        let _counted = self.places.budget().handle().map_err(no_room)?;
        // The owner may lock for reading by this handle and for writing by its next one. Where somebody
        // on the host has a lease on the file, that would make the whole queue wait.
        let description = match self.reopen_leased(&open.file, OFlags::RDWR, false) {
            Ok(description) => description,
            Err(_) => self.reopen_leased(&open.file, open.mode(), false)?,
        };
        let owned = Arc::new(Owner {
            description: File::from(description),
            handle,
            pid: AtomicU32::new(0),
            _counted,
        });
        // Another queue may have been quicker.
        let mut owners = self.locks.lock();
        Ok(owners.entry((inode, owner)).or_insert(owned).clone())
    }

    /// The first lock that is in the way of `lock`; one of type `F_UNLCK` if none is.
    pub(super) fn conflicting_lock(
        &self,
        (inode, handle): (u64, u64),
        owner: u64,
        lock: FileLock,
        flags: u32,
    ) -> io::Result<FileLock> {
        self.serves_lock(flags)?;
        let open = self.handles.file(inode, handle)?;
        let range = range_of(&lock)?;
        // A handle's own description never has such locks.
        let found = match self.locks.of(inode, owner) {
            Some(owned) => ofd_lock_in_the_way(&owned.description, range)?,
            None => ofd_lock_in_the_way(&*open.file, range)?,
        };
        let Some(found) = found else {
            return Ok(FileLock {
                lock_type: NONE,
                ..lock
            });
        };
        Ok(FileLock {
            start: found.start.cast_unsigned(),
            end: match found.len {
                0 => ENDLESS,
                len => (found.start + len - 1).cast_unsigned(),
            },
            lock_type: found.kind.cast_unsigned(),
            pid: self.holder(inode, found)?,
        })
    }

    /// Which of the guest's processes holds a lock: the one whose own locks are not in the way of
    /// another there. 0: none of this guest's, or several.
    fn holder(&self, inode: u64, found: OfdLock) -> io::Result<u32> {
        let owners: Vec<_> = {
            let owners = self.locks.lock();
            let of_file = owners.iter().filter(|((node, _), _)| *node == inode);
            of_file.map(|(_, owner)| owner.clone()).collect()
        };
        let exclusive = OfdLock {
            kind: libc::F_WRLCK,
            ..found
        };
        for owner in owners {
            if ofd_lock_in_the_way(&owner.description, exclusive)?.is_none() {
                return Ok(owner.pid.load(Ordering::Relaxed));
            }
        }
        Ok(0)
    }

    /// The `flock` lock of a handle goes, whatever is still under way by it.
    pub(super) fn unlock_whole(&self, inode: u64, handle: u64) -> io::Result<()> {
        set_whole(&*self.handles.any(inode, handle)?, NONE)
    }
}

/// flock(2).
fn set_whole(open: &Handle, kind: u32) -> io::Result<()> {
    let operation = match kind {
        READ => FlockOperation::NonBlockingLockShared,
        WRITE => FlockOperation::NonBlockingLockExclusive,
        NONE => FlockOperation::NonBlockingUnlock,
        _ => return Err(errno(libc::EINVAL)),
    };
    Ok(rustix::fs::flock(&open.file, operation)?)
}

fn range_of(lock: &FileLock) -> io::Result<OfdLock> {
    let invalid = || errno(libc::EINVAL);
    let kind = match lock.lock_type {
        READ => libc::F_RDLCK,
        WRITE => libc::F_WRLCK,
        NONE => libc::F_UNLCK,
        _ => return Err(invalid()),
    };
    if lock.start > lock.end || lock.end > ENDLESS {
        return Err(invalid());
    }
    let start = i64::try_from(lock.start).map_err(|_| invalid())?;
    let len = match lock.end {
        ENDLESS => 0,
        end => i64::try_from(end - lock.start + 1).map_err(|_| invalid())?,
    };
    Ok(OfdLock { kind, start, len })
}
