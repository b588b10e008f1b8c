//! What an earlier process left: its nodes and open files, found again.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::OFlags;

use super::handles::{NewHandle, Opened};
use super::inode::{FoundAgain, Inode};
use super::named::At;
use super::names::{check_name, open_node};
use super::open::require_regular;
use super::place::Found;
use super::proof::{Proof, born};
use super::{OpenError, Passthrough, errno};
use crate::fuse::ROOT;
use crate::keeper::{Held, Keeper};
use crate::state::{NodeRecord, RootIdentity, SavedNode, SavedOpen, State};
use crate::sys::{FileHandle, FileStatus, status_of};

/// Nodes that have not been found yet, by number, with their places in the ledger.
pub(super) type Missing = HashMap<u64, (SavedNode, Option<NodeRecord>)>;
/// Those that have.
pub(super) type Known = HashMap<u64, Arc<Inode>>;

/// By what a file is known to be the one that was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// On the same host: by all that tells files apart.
    Proof,
    /// Elsewhere inode numbers and times may be others: by where it is, and by handle if that is wanted.
    Place,
}

impl Passthrough {
    /// Remembers nodes and open files in `state` from now on, and takes over what an earlier process
    /// remembered there, and what a keeper has held for it.
    ///
    /// # Errors
    /// When the shared directory cannot be looked at.
    pub fn remember_in(
        &mut self,
        state: &State,
        keeper: Option<(Keeper, Held)>,
    ) -> Result<(), OpenError> {
        let failed = |source| OpenError::SharedDirectory {
            path: self.config.shared_directory.clone(),
            source,
        };
        let root = self.inodes.root().clone();
        let status = root.fd().and_then(status_of).map_err(failed)?;
        let handles_work = self.config.file_handles != super::FileHandles::Never
            && self.opens_by_handle(&root).is_ok();
        self.places
            .remember(handles_work.then_some(status.mount_id));
        let first = state.session.first_number();
        self.inodes.remember_in(state.ledger.clone(), first);
        self.handles.remember_in(state.ledger.clone(), first);
        let saved = state.saved(&RootIdentity {
            inode: status.attributes.st_ino,
            born: born(&status),
        });
        let (keeper, held) = keeper.unzip();
        self.keeper = keeper;
        if state.session.features().is_none() {
            if let Some(keeper) = &self.keeper {
                keeper.clear();
            }
            return Ok(());
        }
        let (nodes, open) = (saved.nodes.len(), saved.open.len());
        let mut missing: Missing = saved
            .nodes
            .into_iter()
            .map(|(node, record)| (node.id, (node, Some(record))))
            .collect();
        let mut known = Known::from([(ROOT, root)]);
        self.take_held(held.unwrap_or_default(), &mut missing, &mut known);
        let ids: Vec<u64> = missing.keys().copied().collect();
        for id in ids {
            self.find_again(id, Trust::Proof, &mut missing, &mut known);
        }
        let mut reopened = 0;
        for (saved, record) in saved.open {
            match self.open_again(&saved, &known) {
                Ok(new) => {
                    self.handles.restore(saved.number, new, Some(record));
                    reopened += 1;
                }
                Err(error) => tracing::debug!(?saved, %error, "an open file is gone"),
            }
        }
        tracing::info!(
            nodes = known.len() - 1,
            nodes_lost = nodes + 1 - known.len(),
            open = reopened,
            open_lost = open - reopened,
            "going on where the last process was"
        );
        Ok(())
    }

    /// Nodes whose files a keeper has held.
    fn take_held(&self, held: Held, missing: &mut Missing, known: &mut Known) {
        for (id, fd) in held {
            let Some((node, record)) = missing.remove(&id) else {
                // The guest had forgotten it.
                self.keeper.iter().for_each(|keeper| keeper.drop(id));
                continue;
            };
            match self.found_again(&node, Trust::Proof, fd, None) {
                Ok(found) => {
                    let inode = self.inodes.restore((&node, record), found);
                    inode.is_held.store(true, Ordering::Relaxed);
                    known.insert(id, inode);
                }
                Err(error) => {
                    tracing::debug!(node = id, %error, "the keeper has another file");
                    self.keeper.iter().for_each(|keeper| keeper.drop(id));
                }
            }
        }
    }

    fn opens_by_handle(&self, root: &Inode) -> io::Result<()> {
        let mount = self.places.known_mount(root.mount());
        let mount = mount.ok_or_else(|| errno(libc::EOPNOTSUPP))?;
        FileHandle::of(root.fd()?)?.open(&mount).map(drop)
    }

    /// Finds node `id`, and before it the directories that lead to it, one after the other.
    pub(super) fn find_again(
        &self,
        id: u64,
        trust: Trust,
        missing: &mut Missing,
        known: &mut Known,
    ) {
        let mut line = Vec::new();
        let mut next = id;
        // What is taken out is never met again: a ring of directories ends, too.
        while let Some((node, record)) = missing.remove(&next) {
            let above = node.at.as_ref().filter(|_| !node.by_handle);
            next = above.map_or(ROOT, |(parent, _)| *parent);
            line.push((node, record));
        }
        for (node, record) in line.into_iter().rev() {
            match self.place_again(&node, trust, known) {
                Ok(found) => {
                    let inode = self.inodes.restore((&node, record), found);
                    known.insert(node.id, inode);
                }
                Err(error) => tracing::debug!(node = node.id, %error, "a node is gone"),
            }
        }
    }

    /// Finds a node's file; it must be the same one.
    fn place_again(&self, node: &SavedNode, trust: Trust, known: &Known) -> io::Result<FoundAgain> {
        let stale = || errno(libc::ESTALE);
        let (fd, at) = if node.by_handle {
            let handle = node.handle.as_ref().ok_or_else(stale)?;
            let mount = self.inodes.root().mount();
            let mount_file = self.places.known_mount(mount).ok_or_else(stale)?;
            (handle.open(&mount_file)?, None)
        } else {
            let (parent, name) = node.at.as_ref().ok_or_else(stale)?;
            check_name(name)?;
            let parent = known.get(parent).ok_or_else(stale)?;
            let fd = open_node(parent.fd()?, name)?;
            (fd, Some((parent, name.as_c_str())))
        };
        self.found_again(node, trust, fd, at)
    }

    fn found_again(
        &self,
        node: &SavedNode,
        trust: Trust,
        fd: OwnedFd,
        at: Option<At<'_>>,
    ) -> io::Result<FoundAgain> {
        let status = status_of(&fd)?;
        let handle = FileHandle::of(&fd).ok();
        if !self.is_same(node, trust, &status, handle.as_ref()) {
            return Err(errno(libc::ESTALE));
        }
        let found = Found {
            fd,
            status: &status,
            handle: handle.as_ref(),
            at,
        };
        let place = self.places.find(found, &self.descriptors)?;
        Ok(FoundAgain {
            place,
            status,
            handle,
        })
    }

    fn is_same(
        &self,
        node: &SavedNode,
        trust: Trust,
        status: &FileStatus,
        handle: Option<&FileHandle>,
    ) -> bool {
        match trust {
            Trust::Proof => {
                let handle = node.handle.as_ref().and(handle);
                status.attributes.st_ino == node.inode
                    && Proof::of(status, handle) == Proof::saved(node)
            }
            Trust::Place => {
                let verify = self.config.migration.verify && node.handle.is_some();
                status.attributes.st_mode & libc::S_IFMT == node.kind
                    && (!verify || node.handle.as_ref() == handle)
            }
        }
    }

    pub(super) fn open_again(&self, saved: &SavedOpen, known: &Known) -> io::Result<NewHandle> {
        let node = known.get(&saved.inode).ok_or_else(|| errno(libc::ESTALE))?;
        // Not what changed it when it was opened, and no more than a guest gets here that opens it anew.
        let flags = OFlags::from_bits_retain(saved.flags).difference(OFlags::TRUNC);
        let flags = self.open_flags(flags.bits())?;
        let fd = node.fd()?;
        let counted = self.places.budget().handle()?;
        let (fd, medium, opened) = if saved.directory {
            if node.kind != libc::S_IFDIR {
                return Err(errno(libc::ENOTDIR));
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let fd = self.descriptors.reopen(fd.as_fd(), flags)?;
            let opened = Opened::Directory(Default::default());
            (fd, self.media.waiting(), opened)
        } else {
            require_regular(node)?;
            let fd = self.descriptors.reopen(fd.as_fd(), flags)?;
            let medium = self.medium(node, &fd, flags);
            (fd, medium, Opened::File)
        };
        Ok(NewHandle {
            inode: node.id,
            fd,
            flags,
            medium,
            opened,
            counted,
        })
    }
}
