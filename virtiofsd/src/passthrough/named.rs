//! Nodes without a descriptor where file handles cannot be had: found again by their names.
//!
//! A node knows its directory's node and its name there. Its file is opened by the names from the
//! nearest node that has a descriptor, and must then prove to be the same one. Names follow what
//! guests rename, link and remove; what the host renames is looked up again by the guest's kernel when
//! it hears `ESTALE`.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::{Mode, OFlags, StatxFlags};

use super::budget::Counted;
use super::errno;
use super::inodes::Inode;
use super::names::CONFINED;
use super::place::{NodeFd, Place};
use super::warm::Warm;
use crate::sys::{FileHandle, FileStatus, status_of};

/// Bytes of a path that a system call takes, its NUL included.
const PATH_MAX: usize = 4096;

/// More directories between a node and the next descriptor are not walked: a hostile guest's.
const MAX_STEPS: usize = 1 << 16;

/// A directory, and a name in it.
pub(super) type At<'a> = (&'a Arc<Inode>, &'a CStr);

/// What nodes by name share.
#[derive(Debug)]
pub(super) struct Names {
    /// There may be such nodes.
    used: AtomicBool,
    /// Held for reading while names are walked, for writing while one changes.
    moves: RwLock<()>,
    /// One directory at a time gets another parent: so none becomes its own ancestor.
    reparenting: Mutex<()>,
    warm: Warm,
    next: AtomicU64,
}

impl Names {
    /// With up to `warm` descriptors of directories.
    pub(super) fn new(warm: usize) -> Self {
        Self {
            used: AtomicBool::new(false),
            moves: RwLock::default(),
            reparenting: Mutex::default(),
            warm: Warm::new(warm),
            next: AtomicU64::new(0),
        }
    }

    /// From now on there may be nodes by name.
    pub(super) fn use_them(&self) {
        if !self.are_used() {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn are_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// No name changes through us while this is held; nothing to hold where there are no nodes by name.
    /// A change that was under way when the first one came may be missed: the guest's kernel then
    /// hears `ESTALE` and looks it up again.
    pub(super) fn still(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.are_used()
            .then(|| self.moves.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nobody walks names while this is held. No node's descriptor must be asked for meanwhile.
    pub(super) fn moving(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        self.are_used()
            .then(|| self.moves.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn reparenting(&self) -> MutexGuard<'_, ()> {
        self.reparenting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What tells a file from the next one that gets its inode number, as far as its file system tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proof {
    kind: u32,
    born: Option<(i64, u32)>,
    /// Has the inode's generation in it. To get one takes no capability.
    handle: Option<FileHandle>,
}

impl Proof {
    pub(super) fn of(status: &FileStatus, handle: Option<&FileHandle>) -> Self {
        let born = status.raw.stx_btime;
        let known = status.raw.stx_mask & StatxFlags::BTIME.bits() != 0;
        Self {
            kind: status.attributes.st_mode & libc::S_IFMT,
            born: known.then_some((born.tv_sec, born.tv_nsec)),
            handle: handle.cloned(),
        }
    }
}

/// Where a node's file is found.
#[derive(Debug)]
pub(super) struct Named {
    names: Arc<Names>,
    /// For the warm descriptors.
    key: u64,
    proof: Proof,
    location: Mutex<Location>,
}

#[derive(Debug)]
struct Location {
    /// `None` while the node is dropped only.
    parent: Option<Arc<Inode>>,
    name: Box<CStr>,
    /// The file, which has lost that name.
    pinned: Option<(Arc<OwnedFd>, Counted)>,
}

impl Named {
    pub(super) fn new(names: &Arc<Names>, proof: Proof, (parent, name): At<'_>) -> Self {
        Self {
            names: names.clone(),
            key: names.next.fetch_add(1, Ordering::Relaxed),
            proof,
            location: Mutex::new(Location {
                parent: Some(parent.clone()),
                name: name.into(),
                pinned: None,
            }),
        }
    }

    /// Whether a file of the same inode number is this one.
    pub(super) fn is(&self, status: &FileStatus, handle: Option<&FileHandle>) -> bool {
        self.proof == Proof::of(status, handle)
    }

    /// The file of `node`, which is this one's, open with `O_PATH`.
    ///
    /// # Errors
    /// `ESTALE`: it is not where its names say.
    pub(super) fn fd(&self, node: &Inode) -> io::Result<NodeFd<'static>> {
        if let Some(fd) = self.at_hand() {
            return Ok(NodeFd::Shared(fd));
        }
        let _still = self.names.still();
        let fd = self.walk()?;
        let status = status_of(&fd)?;
        let handle = FileHandle::of(&fd).ok();
        if !node.is_numbered(&status) || !self.is(&status, handle.as_ref()) {
            return Err(errno(libc::ESTALE));
        }
        if node.kind != libc::S_IFDIR {
            return Ok(NodeFd::Opened(fd));
        }
        let fd = Arc::new(fd);
        self.names.warm.keep(self.key, &fd);
        Ok(NodeFd::Shared(fd))
    }

    /// The file was found at `at`.
    pub(super) fn found(&self, node: &Inode, (parent, name): At<'_>) {
        let stays = |location: &Location| {
            let same = location
                .parent
                .as_ref()
                .is_some_and(|known| Arc::ptr_eq(known, parent));
            same && *location.name == *name && location.pinned.is_none()
        };
        if stays(&self.location()) {
            return;
        }
        // Only directories are somebody's parents.
        let _one = (node.kind == libc::S_IFDIR).then(|| self.names.reparenting());
        if node.kind == libc::S_IFDIR && is_below(node, parent) {
            return;
        }
        let mut location = self.location();
        let gone = (
            location.parent.replace(parent.clone()),
            location.pinned.take(),
        );
        location.name = name.into();
        drop(location);
        // What closes or frees does so after the lock.
        drop(gone);
    }

    /// The file loses its name `at`, if that is the one it is known by: then `fd` keeps it.
    pub(super) fn lost(&self, (parent, name): At<'_>, fd: OwnedFd, counted: Counted) {
        let mut location = self.location();
        let known = location.parent.as_ref();
        if known.is_some_and(|known| Arc::ptr_eq(known, parent)) && *location.name == *name {
            location.pinned = Some((Arc::new(fd), counted));
        }
    }

    /// The descriptor that the file was kept by when it had lost its name, if nobody uses it.
    pub(super) fn take_pinned(&mut self) -> Option<OwnedFd> {
        let location = self
            .location
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        location
            .pinned
            .take()
            .and_then(|(fd, _)| Arc::into_inner(fd))
    }

    fn location(&self) -> MutexGuard<'_, Location> {
        self.location.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at_hand(&self) -> Option<Arc<OwnedFd>> {
        let pinned = self.location().pinned.as_ref().map(|(fd, _)| fd.clone());
        pinned.or_else(|| self.names.warm.get(self.key))
    }

    fn step(&self) -> io::Result<(Arc<Inode>, CString)> {
        let location = self.location();
        let parent = location.parent.clone().ok_or_else(|| errno(libc::ESTALE))?;
        Ok((parent, location.name.clone().into()))
    }

    /// Opens whatever is where the names lead.
    fn walk(&self) -> io::Result<OwnedFd> {
        let (mut above, name) = self.step()?;
        let mut names = vec![name];
        let start = loop {
            let Place::Named(named) = above.place() else {
                break None;
            };
            if let Some(fd) = named.at_hand() {
                break Some(fd);
            }
            let (parent, name) = named.step()?;
            if names.len() == MAX_STEPS {
                return Err(errno(libc::ESTALE));
            }
            names.push(name);
            above = parent;
        };
        match start {
            Some(fd) => descend(fd.as_fd(), names),
            None => descend(above.fd()?.as_fd(), names),
        }
    }

    fn take_parent(&mut self) -> Option<Arc<Inode>> {
        let location = self
            .location
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        location.parent.take()
    }
}

impl Drop for Named {
    /// Ancestors that go with it, one after the other: recursion would use the stack up.
    fn drop(&mut self) {
        self.names.warm.forget(self.key);
        let mut parent = self.take_parent();
        while let Some(node) = parent {
            parent = Arc::into_inner(node).and_then(|mut node| match node.place_mut() {
                Place::Named(named) => named.take_parent(),
                _ => None,
            });
        }
    }
}

/// Whether `directory` is `node` or below it. Only for whoever holds the lock for reparenting.
fn is_below(node: &Inode, directory: &Arc<Inode>) -> bool {
    let mut above = directory.clone();
    for _ in 0..MAX_STEPS {
        if above.id == node.id {
            return true;
        }
        let Place::Named(named) = above.place() else {
            return false;
        };
        let Ok((parent, _)) = named.step() else {
            return false;
        };
        above = parent;
    }
    true
}

/// Opens what `names`, the last one first, lead to; as many of them at once as a path can have.
fn descend(start: BorrowedFd<'_>, names: Vec<CString>) -> io::Result<OwnedFd> {
    let mut names = names.into_iter().rev().peekable();
    let mut from: Option<OwnedFd> = None;
    loop {
        let mut path = Vec::new();
        while let Some(name) = names.next_if(|name| path.len() + name.count_bytes() + 2 <= PATH_MAX)
        {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
        }
        let on_the_way = if names.peek().is_some() {
            OFlags::DIRECTORY
        } else {
            OFlags::empty()
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | on_the_way;
        let directory = from.as_ref().map_or(start, AsFd::as_fd);
        let fd = rustix::fs::openat2(directory, path, flags, Mode::empty(), CONFINED)
            .map_err(|error| gone_if(error.into()))?;
        if names.peek().is_none() {
            return Ok(fd);
        }
        from = Some(fd);
    }
}

/// Names that lead nowhere any more make a node stale.
fn gone_if(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV) => errno(libc::ESTALE),
        _ => error,
    }
}
