//! Where a node's file is: behind an open descriptor, or, when there are many, behind a handle.
//!
//! A guest's kernel caches as many nodes as it has memory for, the daemon may have only so many
//! files open. Beyond half of that, nodes are kept by file handle and opened for each use.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::OFlags;
use rustix::process::{Resource, getrlimit};

use super::descriptors::DescriptorDirectory;
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

/// One of the descriptors that nodes hold.
pub(super) struct Counted(Arc<AtomicUsize>);

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Finds places for nodes, within the limit of open files.
pub(super) struct Places {
    open: Arc<AtomicUsize>,
    max_open: usize,
    /// There may be nodes by handle: once crowded, always.
    handles: AtomicBool,
    /// By mount id, an open file of the mount.
    mounts: RwLock<HashMap<u64, Arc<OwnedFd>>>,
}

impl Places {
    /// Half of the limit of open files is for nodes, the rest for what guests have open.
    pub(super) fn within_limits() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::with_max_open(usize::try_from(limit / 2).unwrap_or(usize::MAX))
    }

    pub(super) fn with_max_open(max_open: usize) -> Self {
        Self {
            open: Arc::default(),
            max_open,
            handles: AtomicBool::new(false),
            mounts: RwLock::default(),
        }
    }

    /// Keeps `fd` open.
    pub(super) fn keep(&self, fd: OwnedFd) -> Place {
        self.open.fetch_add(1, Ordering::Relaxed);
        let _counted = Counted(self.open.clone());
        Place::Open { fd, _counted }
    }

    /// Whether nodes should do without a descriptor.
    pub(super) fn is_crowded(&self) -> bool {
        let crowded = self.open.load(Ordering::Relaxed) >= self.max_open;
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
    pub(super) fn find(
        &self,
        fd: OwnedFd,
        handle: Option<FileHandle>,
        status: &FileStatus,
        descriptors: &DescriptorDirectory,
    ) -> Place {
        if self.is_crowded()
            && let Some(handle) = handle
            && let Some(mount) = self.mount(&fd, status, descriptors)
            && handle.open(&mount).is_ok()
        {
            return Place::Handle(handle, mount);
        }
        self.keep(fd)
    }

    fn mount(
        &self,
        fd: &OwnedFd,
        status: &FileStatus,
        descriptors: &DescriptorDirectory,
    ) -> Option<Arc<OwnedFd>> {
        let mounts = self.mounts.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(mount) = mounts.get(&status.mount_id) {
            return Some(mount.clone());
        }
        drop(mounts);
        // Handles want a file that is open for real; only these may be opened at will.
        let kind = status.attributes.st_mode & libc::S_IFMT;
        if status.mount_id == 0 || !matches!(kind, libc::S_IFDIR | libc::S_IFREG) {
            return None;
        }
        let mount = Arc::new(descriptors.reopen(fd, OFlags::RDONLY).ok()?);
        let mut mounts = self.mounts.write().unwrap_or_else(PoisonError::into_inner);
        Some(mounts.entry(status.mount_id).or_insert(mount).clone())
    }
}
