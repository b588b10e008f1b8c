//! What [`Passthrough`] does beyond fuse-backend-rs's `FileSystem`.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::stat64;
use fuse_backend_rs::api::filesystem::{Context, Entry, OpenOptions, SetattrValid};
use rustix::fs::OFlags;

use super::names::check_name;
use super::open::require_regular;
use super::proof::born;
use super::{CachePolicy, Passthrough};
use crate::file_system::{Access, Creator, FileRange, GuestFileSystem, NewNode, Opened, Trace};
use crate::fuse::Features;
use crate::fuse::abi::{CreateIn, Statx};
use crate::keeper::Keeper;
use crate::medium::HostFile;
use crate::sys::status_at;

impl Passthrough {
    /// What this file system does, where the guest's kernel can.
    fn features(&self) -> Features {
        let always = Features::ASYNC_READ
            | Features::ATOMIC_O_TRUNC
            | Features::DONT_MASK
            | Features::ASYNC_DIO
            | Features::PARALLEL_DIROPS
            // The target of a link never changes: a new target is a new link.
            | Features::CACHE_SYMLINKS;
        always
            .with_if(
                self.config.cache == CachePolicy::Auto,
                Features::AUTO_INVAL_DATA,
            )
            .with_if(self.config.writeback, Features::WRITEBACK_CACHE)
            .with_if(self.config.allow_mmap, Features::DIRECT_IO_ALLOW_MMAP)
            .with_if(self.config.kill_privileges, Features::HANDLE_KILLPRIV_V2)
            .with_if(self.config.posix_lock, Features::POSIX_LOCKS)
            .with_if(self.config.flock, Features::FLOCK_LOCKS)
            .with_if(self.config.posix_acl, Features::POSIX_ACL)
            .with_if(self.config.security_label, Features::SECURITY_CTX)
            .with_if(self.config.announce_submounts, Features::SUBMOUNTS)
            .with_if(
                self.config.readdirplus,
                Features::DO_READDIRPLUS | Features::READDIRPLUS_AUTO,
            )
    }
}

impl GuestFileSystem for Passthrough {
    fn negotiate(&self, offered: Features) -> io::Result<Features> {
        let agreed = self.features() & offered;
        self.agreed.store(agreed.bits(), Ordering::Relaxed);
        Ok(agreed)
    }

    fn io_file(&self, inode: u64, handle: u64, access: Access) -> io::Result<Option<HostFile>> {
        self.file_for(inode, handle, access)
    }

    /// A file that was only read has no failed write to tell of; but its locks go when it is closed.
    fn flushes(&self, flags: u32) -> bool {
        self.config.posix_lock || OFlags::from_bits_retain(flags) & OFlags::RWMODE != OFlags::RDONLY
    }

    fn open_as(
        &self,
        creator: &Creator,
        inode: u64,
        flags: u32,
        open_flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions, Option<u32>)> {
        let (handle, options) = self.open_file(inode, flags, open_flags, creator.may_wait)?;
        Ok((Some(handle), options, None))
    }

    fn setattr_as(
        &self,
        creator: &Creator,
        inode: u64,
        attributes: stat64,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        let may_wait = creator.may_wait;
        let status = self.change_attributes(inode, &attributes, handle, valid, may_wait)?;
        Ok((self.shown(status.attributes), self.config.cache.timeout()))
    }

    fn leftovers(&self) -> Vec<OwnedFd> {
        // Those that a keeper holds are left over, too, until it is told.
        self.keeper.iter().for_each(Keeper::catch_up);
        self.leftovers.take()
    }

    fn create_as(
        &self,
        creator: &Creator,
        parent: u64,
        name: &CStr,
        args: CreateIn,
    ) -> io::Result<Opened> {
        self.create_file(creator, (parent, name), args)
    }

    fn mkdir_as(
        &self,
        creator: &Creator,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.make_directory(creator, (parent, name), mode, umask)
    }

    fn mknod_as(
        &self,
        creator: &Creator,
        parent: u64,
        name: &CStr,
        node: NewNode,
    ) -> io::Result<Entry> {
        self.make_node(creator, (parent, name), node)
    }

    fn symlink_as(
        &self,
        creator: &Creator,
        target: &CStr,
        parent: u64,
        name: &CStr,
    ) -> io::Result<Entry> {
        self.make_symlink(creator, (parent, name), target)
    }

    fn tmpfile(&self, creator: &Creator, parent: u64, args: CreateIn) -> io::Result<Opened> {
        self.create_unnamed(creator, parent, args)
    }

    fn setxattr_and_mode(
        &self,
        _context: &Context,
        inode: u64,
        name: &CStr,
        value: &[u8],
        (flags, kill_sgid): (u32, bool),
    ) -> io::Result<()> {
        self.set_xattr(inode, name, value, flags)?;
        if kill_sgid {
            self.clear_set_group_id(inode)?;
        }
        Ok(())
    }

    fn can_move(&self) -> bool {
        true
    }

    fn save(&self, features: Option<Features>) -> io::Result<Vec<u8>> {
        self.save_all(features)
    }

    fn load(&self, saved: &[u8]) -> io::Result<Option<Features>> {
        self.load_all(saved)
    }

    fn read_back(&self, inode: u64, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let node = self.inodes.get(inode)?;
        require_regular(&node)?;
        let file = self.descriptors.reopen(&node.fd()?, OFlags::RDONLY)?;
        Ok(rustix::io::pread(&file, into, offset)?)
    }

    fn trace(&self, parent: u64, name: &CStr) -> Option<Trace> {
        check_name(name).ok()?;
        let directory = self.inodes.get(parent).ok()?;
        let status = status_at(directory.fd().ok()?, name).ok()?;
        let (seconds, nanoseconds) = born(&status).unwrap_or_default();
        Some([
            status.attributes.st_ino,
            status.attributes.st_dev,
            seconds.cast_unsigned(),
            u64::from(nanoseconds) | 1 << 63,
        ])
    }

    fn copy_file_range(&self, from: FileRange, to: FileRange, len: u64) -> io::Result<u32> {
        self.copy_range(from, to, len)
    }

    fn syncfs(&self, inode: u64) -> io::Result<()> {
        self.sync_file_system(inode)
    }

    fn statx(&self, inode: u64, handle: Option<u64>) -> io::Result<(Statx, Duration)> {
        self.extended_status(inode, handle)
    }
}
