//! Nodes without a descriptor where file handles cannot be had: found again by their names.
//!
//! A node knows its directory's node and its name there. Its file is opened by the names from the
//! nearest node that has a descriptor, and must then prove to be the same one. Names follow what
//! guests rename, link and remove; what the host renames is looked up again by the guest's kernel when
//! it hears `ESTALE`.

use std::ffi::{CStr, CString};
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::Counted;
use super::descend::descend;
use super::errno;
use super::inode::Inode;
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
    /// `None` while the node is dropped, and of a file that never had a name.
    parent: Option<Arc<Inode>>,
    name: Box<CStr>,
    /// The file has lost that name.
    nameless: bool,
    /// A name that it had before, and may have still: its directory's number, and the name there. For the
    /// next process, which makes sure that it is the same file.
    other: Option<Box<OtherName>>,
    /// The file then, if its node does not keep it.
    pinned: Option<(Arc<OwnedFd>, Counted)>,
}

/// A directory's number, and a name in it.
type OtherName = (u64, Box<CStr>);

impl Named {
    /// A node that was found at `at`; that has no name, if there is none.
    pub(super) fn new(names: &Arc<Names>, proof: Proof, at: Option<At<'_>>) -> Self {
        let (parent, name) = at.unzip();
        Self {
            names: names.clone(),
            key: names.next_key(),
            proof,
            location: Mutex::new(Location {
                nameless: parent.is_none(),
                parent: parent.cloned(),
                name: name.unwrap_or_default().into(),
                other: None,
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

    /// The file was found at `at`, or moved there from `from`.
    pub(super) fn found(&self, node: &Inode, at: At<'_>, from: Option<At<'_>>) {
        if self.location().is(at) {
            return;
        }
        // Only directories are somebody's parents.
        let _one = (node.kind == libc::S_IFDIR).then(|| self.names.reparenting());
        if node.kind == libc::S_IFDIR && is_below(node, at.0) {
            return;
        }
        let mut location = self.location();
        let gone = location.change(at, from, node.record().is_kept());
        node.record().moved(at.0.id, at.1);
        drop(location);
        // What closes or frees does so after the lock.
        drop(gone);
    }

    /// The file of `node` loses its name `at`, if that is one it is known by: then `fd` keeps it, if
    /// the node does not.
    pub(super) fn lost(&self, node: &Inode, at: At<'_>, kept: Option<(OwnedFd, Counted)>) {
        let mut location = self.location();
        if location.is(at) {
            location.nameless = true;
            location.pinned = kept.map(|(fd, counted)| (Arc::new(fd), counted));
        } else if location.was_at(at) {
            location.other = None;
        }
        if location.nameless {
            match &location.other {
                Some(other) => node.record().moved(other.0, &other.1),
                None => node.record().lost_name(),
            }
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

impl Location {
    fn has(&self, (parent, name): At<'_>) -> bool {
        let known = self.parent.as_ref();
        known.is_some_and(|known| Arc::ptr_eq(known, parent)) && *self.name == *name
    }

    /// Whether the file is at `at`.
    fn is(&self, at: At<'_>) -> bool {
        !self.nameless && self.has(at)
    }

    /// Whether the file has had that other name.
    fn was_at(&self, (parent, name): At<'_>) -> bool {
        let other = self.other.as_ref();
        other.is_some_and(|other| other.0 == parent.id && *other.1 == *name)
    }

    /// The file is at `at` now; what kept it is given back, to be dropped. Where it was it may be still,
    /// unless it came `from` there: that is to be known to the next process, if one is to know the node.
    fn change(
        &mut self,
        at: At<'_>,
        from: Option<At<'_>>,
        is_remembered: bool,
    ) -> impl Sized + use<> {
        let stays = !self.nameless && !from.is_some_and(|from| self.has(from));
        let (parent, name) = at;
        let above = self.parent.replace(parent.clone());
        let before = mem::replace(&mut self.name, name.into());
        if stays
            && is_remembered
            && let Some(above) = &above
        {
            self.other = Some(Box::new((above.id, before)));
        } else if self.was_at(at) || from.is_some_and(|from| self.was_at(from)) {
            self.other = None;
        }
        self.nameless = false;
        (above, self.pinned.take())
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
