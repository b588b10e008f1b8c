//! Names in directories: looking up, removing, renaming, linking.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fuse_backend_rs::abi::fuse_abi::ATTR_SUBMOUNT;
use fuse_backend_rs::api::filesystem::Entry;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::inode::Inode;
use super::named::At;
use super::place::Found;
use super::{Passthrough, errno};
use crate::fuse::Features;
use crate::sys::{FileHandle, status_of};

/// Nothing leaves the directory it starts from: no "..", no symbolic link, no /proc magic link.
pub(super) const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_SYMLINKS);

/// How nodes are opened.
const NODE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Passthrough {
    /// Looks `name` up in `directory` and counts the lookup.
    pub(super) fn look_up_in(&self, directory: &Arc<Inode>, name: &CStr) -> io::Result<Entry> {
        check_name(name)?;
        let above = directory.fd()?;
        let _still = self.places.names().still();
        let fd = open_node(&above, name)?;
        let mut entry = self.entry_of(fd, Some((directory, name)))?;
        if self.agreed(Features::SUBMOUNTS) {
            self.announce_mount(directory, &mut entry);
        }
        Ok(entry)
    }

    /// Tells the guest's kernel if another file system is mounted here: it makes a mount of its own of
    /// it, with a device number of its own.
    fn announce_mount(&self, directory: &Inode, entry: &mut Entry) {
        let mounted = |node: Arc<Inode>| node.mount() != directory.mount();
        if entry.attr.st_mode & libc::S_IFMT == libc::S_IFDIR
            && self.inodes.get(entry.inode).is_ok_and(mounted)
        {
            entry.attr_flags |= ATTR_SUBMOUNT;
        }
    }

    /// The entry of a file that is open with `O_PATH`, and was found at `at`; counts the lookup. If it
    /// is there still is for the caller to see to ([`super::moves::Names::still`]).
    pub(super) fn entry_of(&self, fd: OwnedFd, at: Option<At<'_>>) -> io::Result<Entry> {
        let status = status_of(&fd)?;
        if !self.places.is_crowded()
            && let Some(inode) = self.inodes.known(&status, None)
        {
            if let Some(at) = at {
                inode.found(at);
            }
            return Ok(self.entry(&inode, &status));
        }
        // Nodes without an open file are told apart by handle, also once there is room again.
        let wanted = self.places.has_closed() || self.places.remembers();
        let handle = wanted.then(|| FileHandle::of(&fd).ok()).flatten();
        let handle = handle.as_ref();
        if let Some(inode) = self.inodes.known(&status, handle) {
            if let Some(at) = at {
                inode.found(at);
            }
            return Ok(self.entry(&inode, &status));
        }
        let found = Found {
            fd,
            status: &status,
            handle,
            at,
        };
        let place = self.places.find(found, &self.descriptors)?;
        let inode = self.inodes.add(place, &status, handle)?;
        Ok(self.entry(&inode, &status))
    }

    /// Takes lookups of a node back. A large file that goes with the last one is left over.
    pub(super) fn forget_node(&self, inode: u64, count: u64) {
        let gone = self.inodes.forget(inode, count);
        if let Some(node) = &gone
            && let Some(keeper) = &self.keeper
            && node.is_held.load(Ordering::Relaxed)
        {
            keeper.drop(node.id);
        }
        if let Some(node) = gone
            && node.kind == libc::S_IFREG
            && let Some(fd) = Arc::into_inner(node).and_then(Inode::into_fd)
        {
            self.leftovers.close(fd);
        }
    }

    pub(super) fn remove(&self, parent: u64, name: &CStr, flags: AtFlags) -> io::Result<()> {
        self.writable()?;
        check_name(name)?;
        let directory = self.inodes.get(parent)?;
        let fd = directory.fd()?;
        let moving = self.places.names().moving();
        let file = self.held(&fd, name);
        rustix::fs::unlinkat(&fd, name, flags)?;
        if let Some(file) = &file {
            self.lost_name(file, (&directory, name));
        }
        drop(moving);
        file.into_iter()
            .for_each(|held| self.leftovers.close(held.fd));
        Ok(())
    }

    pub(super) fn rename_entry(
        &self,
        (old_parent, old): (u64, &CStr),
        (new_parent, new): (u64, &CStr),
        flags: u32,
    ) -> io::Result<()> {
        self.writable()?;
        check_name(old)?;
        check_name(new)?;
        let from = self.inodes.get(old_parent)?;
        let to = self.inodes.get(new_parent)?;
        let (from_fd, to_fd) = (from.fd()?, to.fd()?);
        let flags = RenameFlags::from_bits_retain(flags);
        let moving = self.places.names().moving();
        let moved = moving.as_ref().and_then(|_| self.held(&from_fd, old));
        let replaced = self.held(&to_fd, new);
        rustix::fs::renameat_with(&from_fd, old, &to_fd, new, flags)?;
        // Two names of one file: both stay.
        let is_one = moved.as_ref().zip(replaced.as_ref());
        if !is_one.is_some_and(|(moved, replaced)| moved.is(replaced)) {
            if let Some(moved) = &moved {
                moved.moved((&from, old), (&to, new));
            }
            match &replaced {
                Some(other) if flags.contains(RenameFlags::EXCHANGE) => {
                    other.moved((&to, new), (&from, old));
                }
                Some(gone) => self.lost_name(gone, (&to, new)),
                None => {}
            }
        }
        drop(moving);
        replaced
            .into_iter()
            .for_each(|held| self.leftovers.close(held.fd));
        Ok(())
    }

    /// Keeps a file from being freed by the call that takes its name away, and knows its node if that
    /// goes by its name. Where nodes are open, its node keeps it already.
    fn held(&self, directory: impl AsFd, name: &CStr) -> Option<Held> {
        let named = self.places.names().are_used();
        if !named && !self.places.has_closed() && self.keeper.is_none() {
            return None;
        }
        let fd = open_node(directory, name).ok()?;
        let node = self.inodes.closed(&fd);
        Some(Held { fd, node })
    }

    /// A node whose name is gone, the last one if it is found by handle, keeps its file by a descriptor,
    /// while there are any.
    fn lost_name(&self, held: &Held, at: At<'_>) {
        let Some(node) = &held.node else { return };
        if self.keeper.is_some() && !has_name(&held.fd) {
            self.hold(node, &held.fd);
        }
        let (place, named) = (node.place(), node.place().named());
        match named {
            Some(named) if place.kept().is_some() => return named.lost(node, at, None),
            None if place.kept().is_some() || has_name(&held.fd) => return,
            _ => {}
        }
        if let Ok(counted) = self.places.budget().nameless()
            && let Ok(fd) = held.fd.try_clone()
        {
            match named {
                Some(named) => named.lost(node, at, Some((fd, counted))),
                None => place.keep(fd, counted),
            }
        }
    }

    pub(super) fn link_entry(&self, inode: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.writable()?;
        check_name(name)?;
        let target = self.inodes.get(inode)?;
        let directory = self.inodes.get(parent)?;
        // By way of /proc: linking a descriptor directly needs CAP_DAC_READ_SEARCH. Following the
        // magic link leads to the file itself, even if that is a symbolic link.
        let fd = target.fd()?;
        let (descriptors, number) = self.descriptors.name(&fd);
        let follow = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(
            descriptors,
            number.as_c_str(),
            &directory.fd()?,
            name,
            follow,
        )?;
        self.look_up_in(&directory, name)
    }
}

/// A file whose name is about to change.
struct Held {
    fd: OwnedFd,
    /// If it is found by handle or by name.
    node: Option<Arc<Inode>>,
}

impl Held {
    fn moved(&self, from: At<'_>, to: At<'_>) {
        if let Some(node) = &self.node {
            node.moved(from, to);
        }
    }

    fn is(&self, other: &Self) -> bool {
        let same = |one: &Arc<Inode>, other: &Arc<Inode>| Arc::ptr_eq(one, other);
        let nodes = self.node.as_ref().zip(other.node.as_ref());
        nodes.is_some_and(|(one, other)| same(one, other))
    }
}

fn has_name(fd: impl AsFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|status| status.st_nlink > 0)
}

/// Opens `name` in `directory` with `O_PATH`.
pub(super) fn open_node(directory: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat2(directory, name, NODE, Mode::empty(), CONFINED).map_err(|error| {
        // It was there, and had been moved elsewhere when the kernel checked once more.
        if error == Errno::XDEV {
            Errno::NOENT
        } else {
            error
        }
    })
}

/// The server has checked names already; whoever calls the file system directly may not have.
pub(super) fn check_name(name: &CStr) -> io::Result<()> {
    match name.to_bytes() {
        b"" | b"." | b".." => Err(errno(libc::EINVAL)),
        bytes if bytes.contains(&b'/') => Err(errno(libc::EINVAL)),
        _ => Ok(()),
    }
}
