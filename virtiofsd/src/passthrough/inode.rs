//! A node: a file of the host that a guest knows.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::budget::Counted;
use super::errno;
use super::named::At;
use super::place::{NodeFd, Place, Way};
use super::version::LastOpened;
use crate::state::NodeRecord;
use crate::sys::{FileHandle, FileStatus};

/// What makes a file the same file, for as long as a descriptor keeps it from being deleted. The
/// mount is part of it: one file seen through two mounts is two nodes, each with its own parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    mount: u64,
}

impl Identity {
    /// Identities that are near each other have others.
    pub(super) fn mixed(self) -> u64 {
        self.inode ^ self.device.rotate_left(32)
    }
}

impl From<&FileStatus> for Identity {
    fn from(status: &FileStatus) -> Self {
        Self {
            device: status.attributes.st_dev,
            inode: status.attributes.st_ino,
            mount: status.mount_id,
        }
    }
}

/// A file of the host that the guest has a node for.
#[derive(Debug)]
pub(super) struct Inode {
    /// The guest's number for it.
    pub(super) id: u64,
    place: Place,
    /// `S_IFMT` part of the mode, which never changes.
    pub(super) kind: u32,
    identity: Identity,
    /// How many lookups the guest has not forgotten. Once 0 it stays 0.
    lookups: AtomicU64,
    /// What the guest may have cached.
    pub(super) last_opened: LastOpened,
    /// What the next process will know of it.
    record: NodeRecord,
    /// The keeper has its file.
    pub(super) is_held: AtomicBool,
    _counted: Counted,
}

/// A node's file that was found again.
pub(super) struct FoundAgain {
    pub(super) place: Place,
    pub(super) status: FileStatus,
    pub(super) handle: Option<FileHandle>,
}

impl Inode {
    /// A node with number `id`, which the guest knows by `lookups`.
    pub(super) fn new(
        (id, lookups): (u64, u64),
        place: Place,
        status: &FileStatus,
        record: NodeRecord,
        counted: Counted,
    ) -> Self {
        Self {
            id,
            place,
            kind: status.attributes.st_mode & libc::S_IFMT,
            identity: Identity::from(status),
            lookups: AtomicU64::new(lookups),
            last_opened: LastOpened::default(),
            record,
            is_held: AtomicBool::new(false),
            _counted: counted,
        }
    }

    /// Which file of the host's it is.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// The inode number on the host.
    pub(super) fn host_number(&self) -> u64 {
        self.identity.inode
    }

    /// The device on the host that it is kept on.
    pub(super) fn device(&self) -> u64 {
        self.identity.device
    }

    /// The mount on the host that it was found on; 0 before Linux 5.8.
    pub(super) fn mount(&self) -> u64 {
        self.identity.mount
    }

    /// The file, open with `O_PATH`.
    ///
    /// # Errors
    /// `ESTALE`: the file is gone.
    pub(super) fn fd(&self) -> io::Result<NodeFd<'_>> {
        if let Some(fd) = self.place.kept() {
            return Ok(NodeFd::Kept(fd));
        }
        match self.place.way() {
            Some(Way::Handle(handle, mount)) => handle.open(mount).map(NodeFd::Opened),
            Some(Way::Named(named)) => named.fd(self),
            None => Err(errno(libc::ESTALE)),
        }
    }

    /// The open file that the node was kept by.
    pub(super) fn into_fd(self) -> Option<OwnedFd> {
        self.place.into_fd()
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn place_mut(&mut self) -> &mut Place {
        &mut self.place
    }

    /// Whether a file has the inode number, device and mount of this one.
    pub(super) fn is_numbered(&self, status: &FileStatus) -> bool {
        self.identity == Identity::from(status)
    }

    /// The file was found at `at`.
    pub(super) fn found(&self, at: At<'_>) {
        if let Some(named) = self.place.named() {
            named.found(self, at, None);
        }
    }

    /// The file was moved.
    pub(super) fn moved(&self, from: At<'_>, to: At<'_>) {
        if let Some(named) = self.place.named() {
            named.found(self, to, Some(from));
        }
    }

    /// Counts a lookup, unless the guest has just forgotten the last one.
    pub(super) fn acquire(&self) -> bool {
        let more = |count| if count == 0 { None } else { Some(count + 1) };
        let known = self
            .lookups
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .is_ok();
        if known {
            self.record.looked_up();
        }
        known
    }

    /// How many lookups the guest has not forgotten.
    pub(super) fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// What the next process will know of it.
    pub(super) fn record(&self) -> &NodeRecord {
        &self.record
    }

    /// Takes lookups back; whether none is left, which only one caller hears.
    pub(super) fn release(&self, count: u64) -> bool {
        let less = |now: u64| {
            if now == 0 {
                None
            } else {
                Some(now.saturating_sub(count))
            }
        };
        self.record.forgotten(count);
        self.lookups
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
            .is_ok_and(|before| count > 0 && before <= count)
    }
}
