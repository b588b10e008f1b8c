//! Where a node's file is: behind an open descriptor, or, when there are many, behind a handle.
//!
//! A guest's kernel caches as many nodes as it has memory for, the daemon may have only so many
//! files open. Beyond half of that, nodes are kept by file handle and opened for each use.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::OFlags;

use super::budget::{Budget, Counted};
use super::descriptors::DescriptorDirectory;
use super::{FileHandles, errno};
use crate::sys::{FileHandle, FileStatus};

/// Where a node's file is.
#[derive(Debug)]
pub(super) enum Place {
    /// Open with `O_PATH`.
    Open { fd: OwnedFd, _counted: Counted },
    /// On the file system of an open file.
    Handle(FileHandle, Arc<OwnedFd>),
}

impl Place {
    /// The file, open with `O_PATH`.
    ///
    /// # Errors
    /// `ESTALE`: the file is gone.
    pub(super) fn fd(&self) -> io::Result<NodeFd<'_>> {
        match self {
            Self::Open { fd, .. } => Ok(NodeFd::Kept(fd.as_fd())),
            Self::Handle(handle, mount) => handle.open(mount).map(NodeFd::Opened),
        }
    }

    /// Whether `other`, of the same inode number, is the same file. An open file keeps its number.
    pub(super) fn is_same_as(&self, other: Option<&FileHandle>) -> bool {
        match self {
            Self::Open { .. } => true,
            Self::Handle(handle, _) => Some(handle) == other,
        }
    }
}

/// A node's file, for the time of a request.
#[derive(Debug)]
pub(super) enum NodeFd<'a> {
    Kept(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl AsFd for NodeFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Kept(fd) => *fd,
            Self::Opened(fd) => fd.as_fd(),
        }
    }
}

/// Finds places for nodes, within the limit of open files.
pub(super) struct Places {
    policy: FileHandles,
    budget: Budget,
    /// There may be nodes by handle: once crowded, always.
    handles: AtomicBool,
    /// By mount id, an open file of the mount.
    mounts: RwLock<HashMap<u64, Arc<OwnedFd>>>,
}

impl Places {
    /// With at most `max_open` nodes open, or half of the limit of open files.
    pub(super) fn new(policy: FileHandles, max_open: Option<usize>) -> Self {
        Self {
            policy,
            budget: Budget::within_limits(max_open),
            handles: AtomicBool::new(false),
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

    /// Whether nodes should do without a descriptor.
    pub(super) fn is_crowded(&self) -> bool {
        let crowded = match self.policy {
            FileHandles::Never => false,
            FileHandles::Prefer | FileHandles::Mandatory => true,
            FileHandles::AsNeeded => self.budget.is_crowded(),
        };
        if crowded {
            self.handles.store(true, Ordering::Relaxed);
        }
        crowded
    }

    /// Whether there may be nodes without a descriptor.
    pub(super) fn uses_handles(&self) -> bool {
        self.handles.load(Ordering::Relaxed)
    }

    /// A place for a new node whose file is open as `fd`; by handle if there is one to use. Where
    /// the file system has none, or the daemon may not use them, the file stays open.
    ///
    /// # Errors
    /// `EMFILE`: too many are open. `EOPNOTSUPP`: there is no handle, and there must be one.
    pub(super) fn find(
        &self,
        fd: OwnedFd,
        handle: Option<FileHandle>,
        status: &FileStatus,
        descriptors: &DescriptorDirectory,
    ) -> io::Result<Place> {
        if self.is_crowded()
            && let Some(handle) = handle
            && let Some(mount) = self.mount(&fd, status, descriptors)
            && handle.open(&mount).is_ok()
        {
            return Ok(Place::Handle(handle, mount));
        }
        if self.policy == FileHandles::Mandatory {
            return Err(errno(libc::EOPNOTSUPP));
        }
        self.keep(fd)
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
