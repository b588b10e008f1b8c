//! Names in directories: looking up, removing, renaming, linking.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use fuse_backend_rs::abi::fuse_abi::ATTR_SUBMOUNT;
use fuse_backend_rs::api::filesystem::Entry;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};

use super::inodes::Inode;
use super::{Passthrough, errno};
use crate::fuse::Features;
use crate::sys::{FileHandle, status_of};

/// Nothing leaves the directory it starts from: no "..", no symbolic link, no /proc magic link.
pub(super) const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_SYMLINKS);

impl Passthrough {
    /// Looks `name` up in `directory` and counts the lookup.
    pub(super) fn look_up_in(&self, directory: &Inode, name: &CStr) -> io::Result<Entry> {
        check_name(name)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(&directory.fd()?, name, flags, Mode::empty(), CONFINED)?;
        let mut entry = self.entry_of(fd)?;
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

    /// The entry of a file that is open with `O_PATH`; counts the lookup.
    pub(super) fn entry_of(&self, fd: OwnedFd) -> io::Result<Entry> {
        let status = status_of(&fd)?;
        if !self.places.is_crowded()
            && let Some(inode) = self.inodes.known(&status, None)
        {
            return Ok(self.entry(&inode, &status));
        }
        // Nodes without an open file are told apart by handle, also once there is room again.
        let handle = if self.places.uses_handles() {
            FileHandle::of(&fd).ok()
        } else {
            None
        };
        if let Some(inode) = self.inodes.known(&status, handle.as_ref()) {
            return Ok(self.entry(&inode, &status));
        }
        let place = self
            .places
            .find(fd, handle.clone(), &status, &self.descriptors)?;
        let inode = self.inodes.add(place, &status, handle.as_ref());
        Ok(self.entry(&inode, &status))
    }

    /// Takes lookups of a node back. A large file that goes with the last one is left over.
    pub(super) fn forget_node(&self, inode: u64, count: u64) {
        let gone = self.inodes.forget(inode, count);
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
        let directory = directory.fd()?;
        let file = self.held(&directory, name);
        rustix::fs::unlinkat(&directory, name, flags)?;
        file.into_iter().for_each(|fd| self.leftovers.close(fd));
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
        let to = to.fd()?;
        let flags = RenameFlags::from_bits_retain(flags);
        let replaced = self.held(&to, new);
        rustix::fs::renameat_with(&from.fd()?, old, &to, new, flags)?;
        replaced.into_iter().for_each(|fd| self.leftovers.close(fd));
        Ok(())
    }

    /// Keeps a file from being freed by the call that takes its name away. Where nodes are open, its
    /// node does that already.
    fn held(&self, directory: impl AsFd, name: &CStr) -> Option<OwnedFd> {
        if !self.places.uses_handles() {
            return None;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(directory, name, flags, Mode::empty(), CONFINED).ok()
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

/// The server has checked names already; whoever calls the file system directly may not have.
pub(super) fn check_name(name: &CStr) -> io::Result<()> {
    match name.to_bytes() {
        b"" | b"." | b".." => Err(errno(libc::EINVAL)),
        bytes if bytes.contains(&b'/') => Err(errno(libc::EINVAL)),
        _ => Ok(()),
    }
}
