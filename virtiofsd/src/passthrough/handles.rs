//! The files and directories that a guest has open.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::fs::OFlags;

use super::budget::Counted;
use super::errno;
use crate::medium::Medium;
use crate::state::{Ledger, OpenRecord, SavedOpen};

/// What is open behind a handle.
#[derive(Debug)]
pub(super) enum Opened {
    /// A regular file.
    File,
    /// A directory. Its descriptor has one position: one listing at a time.
    Directory(Mutex<()>),
}

/// An open file or directory.
#[derive(Debug)]
pub(super) struct Handle {
    /// Whose it is: a handle used with another node is forged.
    inode: u64,
    pub(super) file: Arc<File>,
    /// What it was opened with.
    flags: OFlags,
    /// What it is kept on.
    pub(super) medium: Arc<Medium>,
    pub(super) opened: Opened,
    _counted: Counted,
    /// What the next process will know of it.
    _record: OpenRecord,
}

/// A file that was opened for a guest.
pub(super) struct NewHandle {
    /// The node's number.
    pub(super) inode: u64,
    pub(super) fd: OwnedFd,
    /// What it was opened with.
    pub(super) flags: OFlags,
    pub(super) medium: Arc<Medium>,
    pub(super) opened: Opened,
    pub(super) counted: Counted,
}

impl Handle {
    /// What it was opened for: reading, writing or both.
    pub(super) fn mode(&self) -> OFlags {
        self.flags & OFlags::RWMODE
    }

    /// Whether it was opened for writing.
    pub(super) fn is_for_writing(&self) -> bool {
        self.mode() != OFlags::RDONLY
    }

    /// Its descriptor, if nothing else uses it.
    pub(super) fn into_fd(self) -> Option<OwnedFd> {
        Arc::into_inner(self.file).map(OwnedFd::from)
    }
}

impl NewHandle {
    fn saved(&self, number: u64) -> SavedOpen {
        SavedOpen {
            number,
            inode: self.inode,
            flags: self.flags.bits(),
            directory: matches!(self.opened, Opened::Directory(_)),
        }
    }
}

const SHARDS: usize = 16;

/// Handles by number.
#[derive(Default)]
pub(super) struct HandleTable {
    shards: [RwLock<HashMap<u64, Arc<Handle>>>; SHARDS],
    next: AtomicU64,
    ledger: Option<Arc<Ledger>>,
}

impl HandleTable {
    /// Remembers handles in `ledger` from now on, numbered from `first`.
    pub(super) fn remember_in(&mut self, ledger: Arc<Ledger>, first: u64) {
        self.ledger = Some(ledger);
        self.next = AtomicU64::new(first);
    }

    /// Keeps a file open as a handle; returns its number.
    pub(super) fn add(&self, new: NewHandle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let ledger = self.ledger.as_ref();
        let record = ledger.map(|ledger| ledger.add_open(&new.saved(number)));
        self.insert(number, new, record.unwrap_or_default());
        number
    }

    /// Keeps a file open as the handle that the guest has known before.
    pub(super) fn restore(&self, number: u64, new: NewHandle, record: Option<OpenRecord>) {
        let record = record.or_else(|| Some(self.ledger.as_ref()?.add_open(&new.saved(number))));
        self.insert(number, new, record.unwrap_or_default());
    }

    /// All handles.
    pub(super) fn all(&self) -> Vec<SavedOpen> {
        let saved = |(number, handle): (&u64, &Arc<Handle>)| SavedOpen {
            number: *number,
            inode: handle.inode,
            flags: handle.flags.bits(),
            directory: matches!(handle.opened, Opened::Directory(_)),
        };
        let of = |shard: &RwLock<HashMap<u64, Arc<Handle>>>| {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.iter().map(saved).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of).collect()
    }

    /// All handles that were opened for writing, by number.
    pub(super) fn for_writing(&self) -> Vec<(u64, Arc<Handle>)> {
        let of = |shard: &RwLock<HashMap<u64, Arc<Handle>>>| {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            let numbered = shard.iter().filter(|(_, handle)| handle.is_for_writing());
            numbered
                .map(|(number, handle)| (*number, handle.clone()))
                .collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of).collect()
    }

    /// The number that the next handle gets.
    pub(super) fn next_number(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Gives new handles numbers from `first` on, if it is not beyond that already.
    pub(super) fn number_from(&self, first: u64) {
        self.next.fetch_max(first, Ordering::Relaxed);
    }

    fn insert(&self, number: u64, new: NewHandle, record: OpenRecord) {
        let handle = Arc::new(Handle {
            inode: new.inode,
            file: Arc::new(File::from(new.fd)),
            flags: new.flags,
            medium: new.medium,
            opened: new.opened,
            _counted: new.counted,
            _record: record,
        });
        let mut shard = self
            .shard(number)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        shard.insert(number, handle);
    }

    /// The open file with this number.
    ///
    /// # Errors
    /// `EBADF`: there is none on this node, or it is a directory.
    pub(super) fn file(&self, inode: u64, number: u64) -> io::Result<Arc<Handle>> {
        let handle = self.any(inode, number)?;
        matches!(handle.opened, Opened::File)
            .then_some(handle)
            .ok_or_else(|| errno(libc::EBADF))
    }

    /// The open file or directory with this number.
    ///
    /// # Errors
    /// `EBADF`: there is none on this node.
    pub(super) fn any(&self, inode: u64, number: u64) -> io::Result<Arc<Handle>> {
        let shard = self
            .shard(number)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        shard
            .get(&number)
            .filter(|handle| handle.inode == inode)
            .cloned()
            .ok_or_else(|| errno(libc::EBADF))
    }

    /// Forgets a handle. It closes as soon as nothing uses it any more.
    ///
    /// # Errors
    /// `EBADF`: there is none on this node.
    pub(super) fn remove(&self, inode: u64, number: u64) -> io::Result<Arc<Handle>> {
        // The descriptor closes with this, after the lock.
        let handle = self.any(inode, number)?;
        let mut shard = self
            .shard(number)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        shard.remove(&number);
        Ok(handle)
    }

    /// Closes all handles.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let handles = std::mem::take(&mut *shard);
            drop(shard);
            drop(handles);
        }
    }

    /// How many handles are open.
    pub(super) fn len(&self) -> usize {
        let len = |shard: &RwLock<HashMap<_, _>>| {
            shard.read().unwrap_or_else(PoisonError::into_inner).len()
        };
        self.shards.iter().map(len).sum()
    }

    fn shard(&self, number: u64) -> &RwLock<HashMap<u64, Arc<Handle>>> {
        &self.shards[usize::from(number.to_le_bytes()[0]) % SHARDS]
    }
}
