//! fuse-backend-rs's trait: which method of [`Passthrough`] carries out which request.

use std::ffi::CStr;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{stat64, statvfs64};
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileLock, FileSystem, FsOptions, GetxattrReply, ListxattrReply,
    OpenOptions, SetattrValid, ZeroCopyReader, ZeroCopyWriter,
};
use rustix::fs::AtFlags;

use super::Passthrough;
use super::data::WriteHow;
use super::handles::Handle;
use crate::file_system::{Creator, FileRange, GuestFileSystem, NewNode, Opened};
use crate::fuse::Features;
use crate::fuse::abi::{CreateIn, WRITE_KILL_SUIDGID};
use crate::sys::file_system_status;
use crate::write_mode::WriteMode;

/// The creator in a request that knows no supplementary groups.
fn creator(context: &Context) -> Creator {
    Creator::new(*context)
}

impl FileSystem for Passthrough {
    type Inode = u64;
    type Handle = u64;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        let agreed = self.negotiate(Features::from_bits(capable.bits()))?;
        Ok(FsOptions::from_bits_truncate(agreed.bits()))
    }

    fn destroy(&self) {
        self.locks.clear();
        if let Some(keeper) = &self.keeper {
            keeper.clear();
        }
        self.handles.clear();
        self.inodes.clear();
    }

    fn lookup(&self, _context: &Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.look_up_in(&self.inodes.get(parent)?, name)
    }

    fn forget(&self, _context: &Context, inode: u64, count: u64) {
        self.forget_node(inode, count);
    }

    fn getattr(
        &self,
        _context: &Context,
        inode: u64,
        handle: Option<u64>,
    ) -> io::Result<(stat64, Duration)> {
        let status = self.status(inode, handle)?;
        Ok((self.shown(status.attributes), self.config.cache.timeout()))
    }

    fn setattr(
        &self,
        context: &Context,
        inode: u64,
        attributes: stat64,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        self.setattr_as(&creator(context), inode, attributes, handle, valid)
    }

    fn readlink(&self, _context: &Context, inode: u64) -> io::Result<Vec<u8>> {
        let node = self.inodes.get(inode)?;
        Ok(rustix::fs::readlinkat(&node.fd()?, c"", Vec::new())?.into_bytes())
    }

    fn symlink(
        &self,
        context: &Context,
        target: &CStr,
        parent: u64,
        name: &CStr,
    ) -> io::Result<Entry> {
        self.symlink_as(&creator(context), target, parent, name)
    }

    fn mknod(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        rdev: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.mknod_as(
            &creator(context),
            parent,
            name,
            NewNode { mode, rdev, umask },
        )
    }

    fn mkdir(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.mkdir_as(&creator(context), parent, name, mode, umask)
    }

    fn unlink(&self, _context: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.remove(parent, name, AtFlags::empty())
    }

    fn rmdir(&self, _context: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.remove(parent, name, AtFlags::REMOVEDIR)
    }

    fn rename(
        &self,
        _context: &Context,
        old_parent: u64,
        old: &CStr,
        new_parent: u64,
        new: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        self.rename_entry((old_parent, old), (new_parent, new), flags)
    }

    fn link(
        &self,
        _context: &Context,
        inode: u64,
        new_parent: u64,
        new: &CStr,
    ) -> io::Result<Entry> {
        self.link_entry(inode, new_parent, new)
    }

    fn open(
        &self,
        context: &Context,
        inode: u64,
        flags: u32,
        open_flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions, Option<u32>)> {
        self.open_as(&creator(context), inode, flags, open_flags)
    }

    fn create(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        args: CreateIn,
    ) -> io::Result<Opened> {
        self.create_as(&creator(context), parent, name, args)
    }

    fn read(
        &self,
        _context: &Context,
        inode: u64,
        handle: u64,
        data: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        _lock_owner: Option<u64>,
        _flags: u32,
    ) -> io::Result<usize> {
        self.read_into(
            FileRange {
                inode,
                handle,
                offset,
            },
            data,
            size,
        )
    }

    fn write(
        &self,
        _context: &Context,
        inode: u64,
        handle: u64,
        data: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        _lock_owner: Option<u64>,
        delayed_write: bool,
        flags: u32,
        write_flags: u32,
    ) -> io::Result<usize> {
        let how = WriteHow {
            kill_privileges: write_flags & WRITE_KILL_SUIDGID != 0,
            mode: WriteMode::new(flags, delayed_write, self.writeback()),
        };
        self.write_from(
            FileRange {
                inode,
                handle,
                offset,
            },
            data,
            size,
            how,
        )
    }

    fn flush(
        &self,
        _context: &Context,
        inode: u64,
        handle: u64,
        lock_owner: u64,
    ) -> io::Result<()> {
        self.locks.closed_by(inode, lock_owner);
        self.flush_file(inode, handle)
    }

    fn fsync(
        &self,
        _context: &Context,
        inode: u64,
        data_only: bool,
        handle: u64,
    ) -> io::Result<()> {
        self.sync(inode, handle, data_only)
    }

    fn fallocate(
        &self,
        context: &Context,
        inode: u64,
        handle: u64,
        mode: u32,
        offset: u64,
        len: u64,
    ) -> io::Result<()> {
        self.allocate(
            context,
            FileRange {
                inode,
                handle,
                offset,
            },
            mode,
            len,
        )
    }

    fn release(
        &self,
        _context: &Context,
        inode: u64,
        _flags: u32,
        handle: u64,
        _flush: bool,
        flock_release: bool,
        _lock_owner: Option<u64>,
    ) -> io::Result<()> {
        if flock_release {
            // The handle goes whatever comes of that: nobody asks again.
            let _ = self.unlock_whole(inode, handle);
        }
        self.locks.released(inode, handle);
        let closed = self.handles.remove(inode, handle)?;
        // Otherwise the node keeps the file from being freed.
        let last = self.places.has_closed() || self.inodes.get(inode).is_err();
        if last && let Some(fd) = Arc::into_inner(closed).and_then(Handle::into_fd) {
            self.leftovers.close(fd);
        }
        Ok(())
    }

    fn statfs(&self, _context: &Context, inode: u64) -> io::Result<statvfs64> {
        file_system_status(&self.inodes.get(inode)?.fd()?)
    }

    fn setxattr(
        &self,
        _context: &Context,
        inode: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
    ) -> io::Result<()> {
        self.set_xattr(inode, name, value, flags)
    }

    fn getxattr(
        &self,
        _context: &Context,
        inode: u64,
        name: &CStr,
        size: u32,
    ) -> io::Result<GetxattrReply> {
        self.get_xattr(inode, name, size)
    }

    fn listxattr(&self, context: &Context, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        self.list_xattrs(context, inode, size)
    }

    fn removexattr(&self, _context: &Context, inode: u64, name: &CStr) -> io::Result<()> {
        self.remove_xattr(inode, name)
    }

    fn opendir(
        &self,
        _context: &Context,
        inode: u64,
        _flags: u32,
    ) -> io::Result<(Option<u64>, OpenOptions)> {
        let (handle, options) = self.open_directory(inode)?;
        Ok((Some(handle), options))
    }

    fn readdir(
        &self,
        _context: &Context,
        inode: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add_entry: &mut dyn FnMut(DirEntry<'_>) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.list((inode, handle), offset, size, add_entry)
    }

    fn readdirplus(
        &self,
        _context: &Context,
        inode: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add_entry: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.list_with_entries((inode, handle), offset, size, add_entry)
    }

    fn fsyncdir(
        &self,
        _context: &Context,
        inode: u64,
        data_only: bool,
        handle: u64,
    ) -> io::Result<()> {
        self.sync(inode, handle, data_only)
    }

    fn releasedir(
        &self,
        _context: &Context,
        inode: u64,
        _flags: u32,
        handle: u64,
    ) -> io::Result<()> {
        self.handles.remove(inode, handle).map(drop)
    }

    fn getlk(
        &self,
        _context: &Context,
        inode: u64,
        handle: u64,
        owner: u64,
        lock: FileLock,
        flags: u32,
    ) -> io::Result<FileLock> {
        self.conflicting_lock((inode, handle), owner, lock, flags)
    }

    /// Does not wait, nor does `setlkw`: that is for the caller to do, who knows how.
    fn setlk(
        &self,
        _context: &Context,
        inode: u64,
        handle: u64,
        owner: u64,
        lock: FileLock,
        flags: u32,
    ) -> io::Result<()> {
        self.set_lock((inode, handle), owner, lock, flags)
    }

    fn access(&self, context: &Context, inode: u64, mask: u32) -> io::Result<()> {
        self.check_access(context, inode, mask)
    }

    fn lseek(
        &self,
        _context: &Context,
        inode: u64,
        handle: u64,
        offset: u64,
        whence: u32,
    ) -> io::Result<u64> {
        self.seek(
            FileRange {
                inode,
                handle,
                offset,
            },
            whence,
        )
    }
}
