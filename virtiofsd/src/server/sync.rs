//! Requests that bring data to stable storage.

use std::io::Result;

use fuse_backend_rs::abi::fuse_abi::FSYNC_FDATASYNC;

use super::reply::Reply;
use super::request::Request;
use super::work::Work;
use super::{Server, lock};
use crate::file_system::{Access, GuestFileSystem};
use crate::fuse::Opcode;
use crate::fuse::abi::{FlushIn, FsyncIn};

pub(super) fn flush<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: FlushIn = request.body.take()?;
    server
        .file_system
        .flush(request.context(), request.node, input.fh, input.lock_owner)?;
    lock::released(server);
    Ok(Work::Replied)
}

/// `FSYNC` and `FSYNCDIR`.
pub(super) fn fsync<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: FsyncIn = request.body.take()?;
    let data_only = input.fsync_flags & FSYNC_FDATASYNC != 0;
    if let Some(file) = server
        .file_system
        .io_file(request.node, input.fh, Access::Sync)?
    {
        let file = file.file;
        return Ok(Work::Sync { file, data_only });
    }
    let (context, node, handle) = (request.context(), request.node, input.fh);
    if request.opcode == Opcode::Fsyncdir {
        server
            .file_system
            .fsyncdir(context, node, data_only, handle)?;
    } else {
        server.file_system.fsync(context, node, data_only, handle)?;
    }
    Ok(Work::Replied)
}

pub(super) fn syncfs<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    server.file_system.syncfs(request.node)?;
    Ok(Work::Replied)
}
