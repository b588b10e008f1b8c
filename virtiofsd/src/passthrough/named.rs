//! Nodes without a descriptor where file handles cannot be had: found again by their names.
//!
//! A node knows its directory's node and its name there. Its file is opened by the names from the
//! nearest node that has a descriptor, and must then prove to be the same one. Names follow what
//! guests rename, link and remove; what the host renames is looked up again by the guest's kernel when
//! it hears `ESTALE`.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::Counted;
use super::descend::descend;
use super::errno;
use super::inodes::Inode;
use super::moves::Names;
use super::place::NodeFd;
use super::proof::Proof;
use crate::sys::{FileHandle, FileStatus, status_of};

/// More directories between a node and the next descriptor are not walked: a hostile guest's.
const MAX_STEPS: usize = 1 << 16;

/// A directory, and a name in it.
pub(super) type At<'a> = (&'a Arc<Inode>, &'a CStr);

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
    /// The file has lost that name.
    nameless: bool,
    /// The file then, if its node does not keep it.
    pinned: Option<(Arc<OwnedFd>, Counted)>,
}

impl Named {
    pub(super) fn new(names: &Arc<Names>, proof: Proof, (parent, name): At<'_>) -> Self {
        Self {
            names: names.clone(),
            key: names.next_key(),
            proof,
            location: Mutex::new(Location {
                parent: Some(parent.clone()),
                name: name.into(),
                nameless: false,
                pinned: None,
            }),
        }
    }

    /// A directory's number, and the name in it.
    pub(super) fn at(&self) -> Option<(u64, CString)> {
        let location = self.location();
        let parent = location.parent.as_ref().filter(|_| !location.nameless)?;
        Some((parent.id, location.name.clone().into()))
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
            same && *location.name == *name && !location.nameless
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
        location.nameless = false;
        node.record().moved(parent.id, name);
        drop(location);
        // What closes or frees does so after the lock.
        drop(gone);
    }

    /// The file of `node` loses its name `at`, if that is the one it is known by: then `fd` keeps it, if
    /// the node does not.
    pub(super) fn lost(
        &self,
        node: &Inode,
        (parent, name): At<'_>,
        kept: Option<(OwnedFd, Counted)>,
    ) {
        let mut location = self.location();
        let known = location.parent.as_ref();
        if known.is_some_and(|known| Arc::ptr_eq(known, parent)) && *location.name == *name {
            location.nameless = true;
            location.pinned = kept.map(|(fd, counted)| (Arc::new(fd), counted));
            node.record().lost_name();
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
            let named = match above.place().kept() {
                Some(_) => break None,
                None => above.place().named(),
            };
            let Some(named) = named else { break None };
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
            parent = Arc::into_inner(node)
                .and_then(|mut node| node.place_mut().named_mut().and_then(Self::take_parent));
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
        let Some(named) = above.place().named() else {
            return false;
        };
        let Ok((parent, _)) = named.step() else {
            return false;
        };
        above = parent;
    }
    true
}
