//! Requests about open files and their data.

use std::io::Result;

use fuse_backend_rs::abi::fuse_abi::{RELEASE_FLOCK_UNLOCK, RELEASE_FLUSH, WRITE_CACHE};

use super::decode::Malformed;
use super::entry::open_out;
use super::reply::Reply;
use super::request::Request;
use super::work::{CopyIn, CopyOut, Work};
use super::{MAX_IO, MAX_READ, Server, lock};
use crate::file_system::{Access, FileRange, GuestFileSystem};
use crate::fuse::Features;
use crate::fuse::abi::{
    CopyFileRangeIn, FOPEN_NOFLUSH, FallocateIn, LseekIn, LseekOut, OpenIn, ReadIn, ReleaseIn,
    WRITE_KILL_SUIDGID, WriteIn, WriteOut,
};
use crate::write_mode::WriteMode;

pub(super) fn open<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: OpenIn = request.body.take()?;
    let (handle, options, backing) = server.file_system.open_as(
        &request.creator,
        request.node,
        input.flags,
        input.fuse_flags,
    )?;
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
    let size = input.size.min(room);
    // To read less would be to say that the file ends there.
    if size > MAX_READ {
        return Err(Malformed::OutOfRange.into());
    }
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
    let mode = WriteMode::new(
        input.flags,
        input.fuse_flags & WRITE_CACHE != 0,
        server.features().contains(Features::WRITEBACK_CACHE),
    );
    let access = Access::Write {
        kill_privileges: input.fuse_flags & WRITE_KILL_SUIDGID != 0,
    };
    Ok(
        match server.file_system.io_file(request.node, input.fh, access)? {
            Some(file) => Work::Write {
                file,
                offset: input.offset,
                size: input.size,
                mode,
            },
            None => Work::CopyIn(CopyIn {
                context: *request.context(),
                inode: request.node,
                input,
                mode,
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
    lock::released(server);
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
    if let Some(file) =
        server
            .file_system
            .io_file(request.node, fh, Access::allocate(request.context()))?
    {
        return Ok(Work::Allocate {
            file: file.file,
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
    let size = copy_in_steps(server, request)?;
    reply.put(&WriteOut { size, padding: 0 })?;
    Ok(Work::Replied)
}

/// `struct fuse_copy_file_range_out { uint64_t bytes_copied; }`.
pub(super) fn copy_file_range_64<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let copied = u64::from(copy_in_steps(server, request)?);
    reply.put_bytes(&copied.to_le_bytes())?;
    Ok(Work::Replied)
}

/// Between two steps of a copy it may be called off; the caller then hears of what was copied.
const COPY_STEP: u64 = 64 << 20;

/// Most bytes of one copy: what Linux copies at most (`MAX_RW_COUNT`).
const COPY_MAX: u64 = 0x7fff_f000;

fn copy_in_steps<F: GuestFileSystem>(server: &Server<F>, request: &mut Request<'_>) -> Result<u32> {
    let input: CopyFileRangeIn = request.body.take()?;
    if input.flags != 0 {
        return Err(Malformed::OutOfRange.into());
    }
    let wanted = input.len.min(COPY_MAX);
    let mut copied = 0;
    loop {
        let at = |offset: u64| offset.checked_add(copied).ok_or(Malformed::OutOfRange);
        let from = FileRange {
            inode: request.node,
            handle: input.fh_in,
            offset: at(input.offset_in)?,
        };
        let to = FileRange {
            inode: input.nodeid_out,
            handle: input.fh_out,
            offset: at(input.offset_out)?,
        };
        let step = (wanted - copied).min(COPY_STEP);
        match server.file_system.copy_file_range(from, to, step) {
            Err(error) if copied == 0 => return Err(error),
            Ok(0) | Err(_) => break,
            Ok(more) => copied = copied.saturating_add(more.into()),
        }
        let called_off = request.interrupt.as_ref().is_some_and(|i| i.is_hurried());
        if copied >= wanted || called_off {
            break;
        }
    }
    // At most COPY_MAX.
    Ok(u32::try_from(copied.min(COPY_MAX)).unwrap_or(u32::MAX))
}
