//! The content of open files.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use fuse_backend_rs::api::filesystem::{Context, ZeroCopyReader, ZeroCopyWriter};
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};

use super::handles::Opened;
use super::set_id::{clearing_set_id, has_set_id};
use super::{Passthrough, errno};
use crate::file_system::{Access, FileRange};
use crate::medium::HostFile;
use crate::sys::close_reporting;
use crate::write_mode::{SyncScope, WriteMode};

/// What a write does besides writing.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriteHow {
    /// Clear set-id bits.
    pub(super) kill_privileges: bool,
    /// As the guest asks.
    pub(super) mode: WriteMode,
}

impl Passthrough {
    /// The file whose data the queue moves.
    pub(super) fn file_for(
        &self,
        inode: u64,
        handle: u64,
        access: Access,
    ) -> io::Result<Option<HostFile>> {
        let open = self.handles.any(inode, handle)?;
        if access.changes() {
            self.writable()?;
        }
        if matches!(open.opened, Opened::Directory(_)) && access != Access::Sync {
            return Err(errno(libc::EBADF));
        }
        // Clearing set-id bits takes a thread without CAP_FSETID, which the ring's is not. It is
        // rare enough to be done inline.
        if access.kills_privileges() && has_set_id(&open.file)? {
            return Ok(None);
        }
        Ok(Some(HostFile {
            file: open.file.clone(),
            medium: open.medium.clone(),
        }))
    }

    pub(super) fn read_into(
        &self,
        range: FileRange,
        data: &mut dyn ZeroCopyWriter,
        size: u32,
    ) -> io::Result<usize> {
        let mut file = self
            .handles
            .file(range.inode, range.handle)?
            .file
            .try_clone()?;
        let (size, mut done) = (size as usize, 0);
        // A guest takes a short read for the end of the file.
        while done < size {
            let at = range.offset.saturating_add(done as u64);
            match data.write_from(&mut file, size - done, at)? {
                0 => break,
                moved => done += moved,
            }
        }
        Ok(done)
    }

    pub(super) fn write_from(
        &self,
        range: FileRange,
        data: &mut dyn ZeroCopyReader,
        size: u32,
        how: WriteHow,
    ) -> io::Result<usize> {
        self.writable()?;
        let open = self.handles.file(range.inode, range.handle)?;
        // Opened again below, it would be writable whatever it was opened for.
        if !open.is_for_writing() {
            return Err(errno(libc::EBADF));
        }
        let mut file = if how.mode.appends() {
            let flags = OFlags::WRONLY | OFlags::APPEND;
            File::from(self.descriptors.reopen(&open.file, flags)?)
        } else {
            open.file.try_clone()?
        };
        let _fsetid = if how.kill_privileges {
            clearing_set_id(&file)?
        } else {
            None
        };
        let written = data.read_to(&mut file, size as usize, range.offset)?;
        match how.mode.sync() {
            Some(SyncScope::All) => file.sync_all()?,
            Some(SyncScope::Data) => file.sync_data()?,
            None => {}
        }
        Ok(written)
    }

    /// A close(2) by one of the guest's processes: closing a duplicate makes the host's file
    /// system do what it does on close, and tell of errors.
    pub(super) fn flush_file(&self, inode: u64, handle: u64) -> io::Result<()> {
        let file = self.handles.file(inode, handle)?.file.try_clone()?;
        close_reporting(OwnedFd::from(file))
    }

    pub(super) fn allocate(
        &self,
        context: &Context,
        range: FileRange,
        mode: u32,
        len: u64,
    ) -> io::Result<()> {
        self.writable()?;
        let open = self.handles.file(range.inode, range.handle)?;
        let _fsetid = if Access::allocate(context).kills_privileges() {
            clearing_set_id(&open.file)?
        } else {
            None
        };
        let mode = FallocateFlags::from_bits_retain(mode);
        Ok(rustix::fs::fallocate(&open.file, mode, range.offset, len)?)
    }

    /// Only what the guest's kernel cannot do by itself: the next data, or the next hole.
    pub(super) fn seek(&self, range: FileRange, whence: u32) -> io::Result<u64> {
        let open = self.handles.file(range.inode, range.handle)?;
        let position = match i32::try_from(whence) {
            Ok(libc::SEEK_DATA) => SeekFrom::Data(range.offset),
            Ok(libc::SEEK_HOLE) => SeekFrom::Hole(range.offset),
            _ => return Err(errno(libc::EINVAL)),
        };
        Ok(rustix::fs::seek(&open.file, position)?)
    }

    pub(super) fn copy_range(&self, from: FileRange, to: FileRange, len: u64) -> io::Result<u32> {
        self.writable()?;
        let source = self.handles.file(from.inode, from.handle)?;
        let target = self.handles.file(to.inode, to.handle)?;
        let (mut read_at, mut write_at) = (from.offset, to.offset);
        let len = usize::try_from(len).map_err(|_| errno(libc::EINVAL))?;
        let copied = rustix::fs::copy_file_range(
            &source.file,
            Some(&mut read_at),
            &target.file,
            Some(&mut write_at),
            len,
        )?;
        u32::try_from(copied).map_err(|_| errno(libc::EIO))
    }
}
