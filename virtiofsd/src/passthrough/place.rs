//! Where a node's file is: behind an open descriptor, or, when there are many, behind a handle or
//! its names.
//!
//! A guest's kernel caches as many nodes as it has memory for, the daemon may have only so many
//! files open. Beyond half of that, nodes are kept by file handle, or by name where there are no
//! handles, and opened for each use.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::OFlags;

use super::budget::{Budget, Counted};
use super::descriptors::DescriptorDirectory;
use super::moves::Names;
use super::named::{At, Named};
use super::proof::Proof;
use super::{FileHandles, errno};
use crate::sys::{FileHandle, FileStatus};

/// Where a node's file is.
#[derive(Debug)]
pub(super) enum Place {
    /// Open with `O_PATH`.
    Open { fd: OwnedFd, _counted: Counted },
    /// On the file system of an open file.
    Handle(FileHandle, Arc<OwnedFd>),
    /// Where its names lead.
    Named(Box<Named>),
}

impl Place {
    /// Whether a file of the same inode number, with `status` and handle, is the same file. An open
    /// file keeps its number.
    pub(super) fn is_of(&self, status: &FileStatus, other: Option<&FileHandle>) -> bool {
        match self {
            Self::Open { .. } => true,
            Self::Handle(handle, _) => Some(handle) == other,
            Self::Named(named) => named.is(status, other),
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
            mounts: RwLock::default(),
        }
    }

    /// Keeps `fd` open.
    ///
    /// # Errors
    /// `EMFILE`: too many are open.
    pub(super) fn keep(&self, fd: OwnedFd) -> io::Result<Place> {
        let _counted = self.budget.node()?;
        Ok(Place::Open { fd, _counted })
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
            && let Some(mount) = self.mount(&fd, status, descriptors)
            && handle.open(&mount).is_ok()
        {
            return Ok(Place::Handle(handle.clone(), mount));
        }
        if self.policy == FileHandles::Mandatory {
            return Err(errno(libc::EOPNOTSUPP));
        }
        match at {
            Some(at) if self.budget.is_crowded() => {
                self.names.use_them();
                let proof = Proof::of(status, handle);
                Ok(Place::Named(Box::new(Named::new(&self.names, proof, at))))
            }
            _ => self.keep(fd),
        }
    }

    fn mount(
        &self,
        fd: &OwnedFd,
        status: &FileStatus,
        descriptors: &DescriptorDirectory,
    ) -> Option<Arc<OwnedFd>> {
        // Before Linux 5.8: a handle on the wrong mount would name another file.
        if status.mount_id == 0 {
            return None;
        }
        let mounts = self.mounts.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(mount) = mounts.get(&status.mount_id) {
            return Some(mount.clone());
        }
        drop(mounts);
        // Handles want a file that is open for real; only these may be opened at will.
        let kind = status.attributes.st_mode & libc::S_IFMT;
        if !matches!(kind, libc::S_IFDIR | libc::S_IFREG) {
            return None;
        }
        let file = descriptors.reopen(fd, OFlags::RDONLY).ok()?;
        Some(self.use_mount(status, file))
    }
}
