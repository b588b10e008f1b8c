//! Requests about open files and their data.

use std::fs::File;
use std::io::Result;
use std::sync::Arc;

use fuse_backend_rs::abi::fuse_abi::{
    READ_LOCKOWNER, RELEASE_FLOCK_UNLOCK, RELEASE_FLUSH, WRITE_CACHE, WRITE_LOCKOWNER,
};
use fuse_backend_rs::api::filesystem::{Context, ZeroCopyReader, ZeroCopyWriter};

use super::decode::Malformed;
use super::entry::open_out;
use super::reply::Reply;
use super::request::Request;
use super::{MAX_IO, Server};
use crate::file_system::{Access, FileRange, GuestFileSystem, appends};
use crate::fuse::Features;
use crate::fuse::abi::{
    CopyFileRangeIn, FOPEN_NOFLUSH, FallocateIn, LseekIn, LseekOut, OpenIn, ReadIn, ReleaseIn,
    WRITE_KILL_SUIDGID, WriteIn, WriteOut,
};

/// What is left to do for a request once it has been dispatched.
#[derive(Debug)]
pub enum Work {
    /// Nothing: the reply's body is whole.
    Replied,
    /// Nothing, and there is no reply.
    Silent,
    /// Read up to `size` bytes of the file into the guest's buffers.
    Read {
        /// The host's file.
        file: Arc<File>,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        size: u32,
    },
    /// Write `size` bytes out of the guest's buffers.
    Write {
        /// The host's file.
        file: Arc<File>,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        size: u32,
        /// To the end of the file instead, wherever that is.
        append: bool,
    },
    /// Bring the file to stable storage.
    Sync {
        /// The host's file.
        file: Arc<File>,
        /// Only what reading the data needs.
        data_only: bool,
    },
    /// fallocate(2).
    Allocate {
        /// The host's file.
        file: Arc<File>,
        /// `FALLOC_FL_*`.
        mode: u32,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Read through the `FileSystem` trait: [`Server::copy_out`].
    CopyOut(CopyOut),
    /// Write through the `FileSystem` trait: [`Server::copy_in`].
    CopyIn(CopyIn),
}

/// A read that the `FileSystem` itself carries out.
#[derive(Clone, Copy, Debug)]
pub struct CopyOut {
    context: Context,
    inode: u64,
    input: ReadIn,
    /// How many bytes at most.
    pub size: u32,
}

/// A write that the `FileSystem` itself carries out.
#[derive(Clone, Copy, Debug)]
pub struct CopyIn {
    context: Context,
    inode: u64,
    input: WriteIn,
}

impl CopyIn {
    /// How many bytes.
    pub fn size(&self) -> u32 {
        self.input.size
    }
}

impl<F: GuestFileSystem> Server<F> {
    /// Carries a read out; returns how many bytes went into `data`.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn copy_out(&self, copy: &CopyOut, data: &mut dyn ZeroCopyWriter) -> Result<usize> {
        let input = &copy.input;
        let owner = (input.read_flags & READ_LOCKOWNER != 0).then_some(input.lock_owner);
        self.file_system.read(
            &copy.context,
            copy.inode,
            input.fh,
            data,
            copy.size,
            input.offset,
            owner,
            input.flags,
        )
    }

    /// Carries a write out; returns how many bytes of `data` went into the file.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn copy_in(&self, copy: &CopyIn, data: &mut dyn ZeroCopyReader) -> Result<usize> {
        let input = &copy.input;
        let owner = (input.fuse_flags & WRITE_LOCKOWNER != 0).then_some(input.lock_owner);
        self.file_system.write(
            &copy.context,
            copy.inode,
            input.fh,
            data,
            input.size,
            input.offset,
            owner,
            input.fuse_flags & WRITE_CACHE != 0,
            input.flags,
            input.fuse_flags,
        )
    }
}

pub(super) fn open<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: OpenIn = request.body.take()?;
    let (context, node) = (request.context(), request.node);
    let (handle, options, backing) =
        server
            .file_system
            .open(context, node, input.flags, input.fuse_flags)?;
    let mut output = open_out(handle, options, backing);
    if !server.file_system.flushes(input.flags) {
        output.open_flags |= FOPEN_NOFLUSH;
    }
    reply.put(&output)?;
    Ok(Work::Replied)
}

/// Offsets are signed on the host, and -1 means something else to io_uring.
fn check_range(offset: u64, size: u32) -> Result<()> {
    match offset.checked_add(size.into()).map(i64::try_from) {
        Some(Ok(_)) => Ok(()),
        _ => Err(Malformed::OutOfRange.into()),
    }
}

pub(super) fn read<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: ReadIn = request.body.take()?;
    check_range(input.offset, input.size)?;
    let room = u32::try_from(reply.room()).unwrap_or(u32::MAX);
    let size = input.size.min(MAX_IO).min(room);
    Ok(
        match server
            .file_system
            .io_file(request.node, input.fh, Access::Read)?
        {
            Some(file) => Work::Read {
                file,
                offset: input.offset,
                size,
            },
            None => Work::CopyOut(CopyOut {
                context: *request.context(),
                inode: request.node,
                input,
                size,
            }),
        },
    )
}

pub(super) fn write<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: WriteIn = request.body.take()?;
    if input.size > MAX_IO {
        return Err(Malformed::OutOfRange.into());
    }
    check_range(input.offset, input.size)?;
    let access = Access::Write {
        kill_privileges: input.fuse_flags & WRITE_KILL_SUIDGID != 0,
    };
    Ok(
        match server.file_system.io_file(request.node, input.fh, access)? {
            Some(file) => Work::Write {
                file,
                offset: input.offset,
                size: input.size,
                append: appends(
                    input.flags,
                    input.fuse_flags & WRITE_CACHE != 0,
                    server.features().contains(Features::WRITEBACK_CACHE),
                ),
            },
            None => Work::CopyIn(CopyIn {
                context: *request.context(),
                inode: request.node,
                input,
            }),
        },
    )
}

pub(super) fn release<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: ReleaseIn = request.body.take()?;
    let flush = input.release_flags & RELEASE_FLUSH != 0;
    let unlock = input.release_flags & RELEASE_FLOCK_UNLOCK != 0;
    server.file_system.release(
        request.context(),
        request.node,
        input.flags,
        input.fh,
        flush,
        unlock,
        (flush || unlock).then_some(input.lock_owner),
    )?;
    Ok(Work::Replied)
}

pub(super) fn fallocate<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let FallocateIn {
        fh,
        offset,
        length: len,
        mode,
        ..
    } = request.body.take()?;
    if let Some(file) = server
        .file_system
        .io_file(request.node, fh, Access::Allocate)?
    {
        return Ok(Work::Allocate {
            file,
            mode,
            offset,
            len,
        });
    }
    server
        .file_system
        .fallocate(request.context(), request.node, fh, mode, offset, len)?;
    Ok(Work::Replied)
}

pub(super) fn lseek<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let LseekIn {
        fh, offset, whence, ..
    } = request.body.take()?;
    let (context, node) = (request.context(), request.node);
    let offset = server
        .file_system
        .lseek(context, node, fh, offset, whence)?;
    reply.put(&LseekOut { offset })?;
    Ok(Work::Replied)
}

pub(super) fn copy_file_range<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: CopyFileRangeIn = request.body.take()?;
    if input.flags != 0 {
        return Err(Malformed::OutOfRange.into());
    }
    let from = FileRange {
        inode: request.node,
        handle: input.fh_in,
        offset: input.offset_in,
    };
    let to = FileRange {
        inode: input.nodeid_out,
        handle: input.fh_out,
        offset: input.offset_out,
    };
    let size = server.file_system.copy_file_range(from, to, input.len)?;
    reply.put(&WriteOut { size, padding: 0 })?;
    Ok(Work::Replied)
}
