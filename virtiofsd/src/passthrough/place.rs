//! Where a node's file is: behind an open descriptor, or, when there are many, behind a handle or
//! its names. Where the next process must find it, too, it has both.
//!
//! A guest's kernel caches as many nodes as it has memory for, the daemon may have only so many
//! files open. Beyond half of that, nodes are kept by file handle, or by name where there are no
//! handles, and opened for each use.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use rustix::fs::OFlags;

use super::budget::{Budget, Counted};
use super::descriptors::DescriptorDirectory;
use super::moves::Names;
use super::named::{At, Named};
use super::proof::{Proof, born};
use super::{FileHandles, errno};
use crate::state::SavedNode;
use crate::sys::{FileHandle, FileStatus};

/// Where a node's file is: open, or to be opened another way, or both.
#[derive(Debug)]
pub(super) struct Place {
    /// Once a file that is found by handle has no name any more, it is kept.
    kept: OnceLock<Kept>,
    /// Where there is no open file, or where the next process is to find it.
    way: Option<Way>,
}

/// A file that is open with `O_PATH`.
#[derive(Debug)]
pub(super) struct Kept {
    fd: OwnedFd,
    _counted: Counted,
}

/// How a file is opened.
#[derive(Debug)]
pub(super) enum Way {
    /// On the file system of an open file.
    Handle(FileHandle, Arc<OwnedFd>),
    /// Where its names lead.
    Named(Box<Named>),
}

impl Place {
    pub(super) fn new(kept: Option<Kept>, way: Option<Way>) -> Self {
        let kept = kept.map_or_else(OnceLock::new, OnceLock::from);
        Self { kept, way }
    }

    /// The descriptor, if the file is kept open.
    pub(super) fn kept(&self) -> Option<BorrowedFd<'_>> {
        self.kept.get().map(|kept| kept.fd.as_fd())
    }

    /// Keeps the file open from now on.
    pub(super) fn keep(&self, fd: OwnedFd, counted: Counted) {
        let _counted = counted;
        // Kept already: the same file.
        let _ = self.kept.set(Kept { fd, _counted });
    }

    /// How the file is found otherwise.
    pub(super) fn way(&self) -> Option<&Way> {
        self.way.as_ref()
    }

    /// The names, if it is found by those.
    pub(super) fn named(&self) -> Option<&Named> {
        match &self.way {
            Some(Way::Named(named)) => Some(named),
            _ => None,
        }
    }

    /// As [`named`](Self::named).
    pub(super) fn named_mut(&mut self) -> Option<&mut Named> {
        match &mut self.way {
            Some(Way::Named(named)) => Some(named),
            _ => None,
        }
    }

    /// The open file that the node was kept by.
    pub(super) fn into_fd(mut self) -> Option<OwnedFd> {
        match self.kept.take() {
            Some(kept) => Some(kept.fd),
            None => self.named_mut().and_then(Named::take_pinned),
        }
    }

    /// What the next process needs to find node `id`, which is new.
    pub(super) fn saved(
        &self,
        id: u64,
        status: &FileStatus,
        handle: Option<&FileHandle>,
    ) -> SavedNode {
        SavedNode {
            id,
            lookups: 1,
            device: status.attributes.st_dev,
            inode: status.attributes.st_ino,
            kind: status.attributes.st_mode & libc::S_IFMT,
            born: born(status),
            handle: handle.cloned(),
            by_handle: matches!(self.way, Some(Way::Handle(..))),
            at: self.named().and_then(Named::at),
        }
    }

    /// Whether a file of the same inode number, with `status` and handle, is the same file. An open
    /// file keeps its number.
    pub(super) fn is_of(&self, status: &FileStatus, other: Option<&FileHandle>) -> bool {
        self.kept().is_some()
            || match &self.way {
                Some(Way::Handle(handle, _)) => Some(handle) == other,
                Some(Way::Named(named)) => named.is(status, other),
                None => false,
            }
    }
}

/// A file that gets a place.
pub(super) struct Found<'a> {
    /// Open with `O_PATH`.
    pub(super) fd: OwnedFd,
    pub(super) status: &'a FileStatus,
    pub(super) handle: Option<&'a FileHandle>,
    /// Where, if it has a name.
    pub(super) at: Option<At<'a>>,
}

/// A node's file, for the time of a request.
#[derive(Debug)]
pub(super) enum NodeFd<'a> {
    Kept(BorrowedFd<'a>),
    Opened(OwnedFd),
    Shared(Arc<OwnedFd>),
}

impl AsFd for NodeFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Kept(fd) => *fd,
            Self::Opened(fd) => fd.as_fd(),
            Self::Shared(fd) => fd.as_fd(),
        }
    }
}

/// Finds places for nodes, within the limit of open files.
pub(super) struct Places {
    policy: FileHandles,
    budget: Budget,
    /// There may be nodes without a descriptor: once crowded, always.
    closed: AtomicBool,
    names: Arc<Names>,
    /// Every node has a way, too.
    remembers: bool,
    /// The mount on which that is the handle.
    by_handle: Option<u64>,
    /// By mount id, an open file of the mount.
    mounts: RwLock<HashMap<u64, Arc<OwnedFd>>>,
}

impl Places {
    /// With at most `max_open` nodes open, or half of the limit of open files.
    pub(super) fn new(policy: FileHandles, max_open: Option<usize>) -> Self {
        let budget = Budget::within_limits(max_open);
        let warm = budget.max_warm();
        Self {
            policy,
            budget,
            closed: AtomicBool::new(false),
            names: Arc::new(Names::new(warm)),
            remembers: false,
            by_handle: None,
            mounts: RwLock::default(),
        }
    }

    /// Keeps `fd` open.
    ///
    /// # Errors
    /// `EMFILE`: too many are open.
    pub(super) fn keep(&self, fd: OwnedFd) -> io::Result<Kept> {
        let _counted = self.budget.node()?;
        Ok(Kept { fd, _counted })
    }

    /// From now on the next process must find every node, too: by handle on the mount `by_handle`, on
    /// others by name.
    pub(super) fn remember(&mut self, by_handle: Option<u64>) {
        self.remembers = true;
        self.by_handle = by_handle;
        if by_handle.is_none() {
            self.names.use_them();
        }
    }

    /// Whether the next process must find every node.
    pub(super) fn remembers(&self) -> bool {
        self.remembers
    }

    /// What nodes and handles share.
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Opens files of the mount that `status` is about by way of `file`, which is open for real.
    pub(super) fn use_mount(&self, status: &FileStatus, file: OwnedFd) -> Arc<OwnedFd> {
        let mut mounts = self.mounts.write().unwrap_or_else(PoisonError::into_inner);
        mounts
            .entry(status.mount_id)
            .or_insert_with(|| Arc::new(file))
            .clone()
    }

    /// Whether a new node should do without a descriptor.
    pub(super) fn is_crowded(&self) -> bool {
        let always = matches!(self.policy, FileHandles::Prefer | FileHandles::Mandatory);
        let crowded = always || self.budget.is_crowded();
        if crowded && !self.has_closed() {
            self.closed.store(true, Ordering::Relaxed);
        }
        crowded
    }

    /// Whether there may be nodes without a descriptor.
    pub(super) fn has_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// What nodes by name share.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// A place for a new node; when there are many open, by handle if there is one to use, else by
    /// name.
    ///
    /// # Errors
    /// `EMFILE`: too many are open, and it has no name. `EOPNOTSUPP`: there is no handle, and there
    /// must be one.
    pub(super) fn find(
        &self,
        found: Found<'_>,
        descriptors: &DescriptorDirectory,
    ) -> io::Result<Place> {
        let Found {
            fd,
            status,
            handle,
            at,
        } = found;
        let crowded = self.is_crowded();
        if crowded
            && self.policy != FileHandles::Never
            && let Some(handle) = handle
            && let Some(mount) = self.mount(&fd, status, at, descriptors)
            && handle.open(&mount).is_ok()
        {
            let way = Way::Handle(handle.clone(), mount);
            return Ok(Place::new(None, Some(way)));
        }
        if self.policy == FileHandles::Mandatory {
            return Err(errno(libc::EOPNOTSUPP));
        }
        let named = |at| {
            self.names.use_them();
            let proof = Proof::of(status, handle);
            Way::Named(Box::new(Named::new(&self.names, proof, at)))
        };
        match at {
            Some(_) if self.budget.is_crowded() => Ok(Place::new(None, Some(named(at)))),
            _ => {
                let way = match handle {
                    _ if !self.remembers => None,
                    Some(handle) if self.by_handle == Some(status.mount_id) => {
                        let mount = self.mount(&fd, status, at, descriptors);
                        mount.map(|mount| Way::Handle(handle.clone(), mount))
                    }
                    // Without a name, too: it may get one.
                    _ => Some(named(at)),
                };
                Ok(Place::new(Some(self.keep(fd)?), way))
            }
        }
    }

    /// An open file on the mount with this number.
    pub(super) fn known_mount(&self, mount_id: u64) -> Option<Arc<OwnedFd>> {
        let mounts = self.mounts.read().unwrap_or_else(PoisonError::into_inner);
        mounts.get(&mount_id).cloned()
    }

    fn mount(
        &self,
        fd: &OwnedFd,
        status: &FileStatus,
        at: Option<At<'_>>,
        descriptors: &DescriptorDirectory,
    ) -> Option<Arc<OwnedFd>> {
        // Before Linux 5.8: a handle on the wrong mount would name another file.
        if status.mount_id == 0 {
            return None;
        }
        if let Some(mount) = self.known_mount(status.mount_id) {
            return Some(mount);
        }
        let above = at
            .filter(|(above, _)| above.mount() == status.mount_id)
            .and_then(|(above, _)| above.place().kept());
        let file = match (above, status.attributes.st_mode & libc::S_IFMT) {
            // It stays open: what a file occupies would not be free when the file is removed.
            (Some(above), _) => descriptors.reopen(above, OFlags::RDONLY | OFlags::DIRECTORY),
            // The mount's root. Handles want a file that is open for real; only these may be opened at will.
            (None, libc::S_IFDIR) => descriptors.reopen(fd, OFlags::RDONLY),
            (None, libc::S_IFREG) if at.is_some() => descriptors.reopen(fd, OFlags::RDONLY),
            _ => return None,
        };
        Some(self.use_mount(status, file.ok()?))
    }
}
