//! Requests about attributes.

use std::io::Result;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{FATTR_FH, GETATTR_FH, stat64};
use fuse_backend_rs::api::filesystem::SetattrValid;

use super::Server;
use super::reply::Reply;
use super::request::Request;
use super::work::Work;
use crate::file_system::GuestFileSystem;
use crate::fuse::abi::{AccessIn, AttrOut, GetattrIn, SetattrIn, StatfsOut, StatxIn, StatxOut};

fn put_attributes(reply: &mut Reply<'_>, (attr, valid): (stat64, Duration)) -> Result<Work> {
    reply.put(&AttrOut {
        attr_valid: valid.as_secs(),
        attr_valid_nsec: valid.subsec_nanos(),
        attr: attr.into(),
        ..Default::default()
    })?;
    Ok(Work::Replied)
}

pub(super) fn getattr<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: GetattrIn = request.body.take()?;
    let handle = (input.flags & GETATTR_FH != 0).then_some(input.fh);
    put_attributes(
        reply,
        server
            .file_system
            .getattr(request.context(), request.node, handle)?,
    )
}

pub(super) fn setattr<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: SetattrIn = request.body.take()?;
    let handle = (input.valid & FATTR_FH != 0).then_some(input.fh);
    let valid = SetattrValid::from_bits_truncate(input.valid);
    let set = server.file_system.setattr_as(
        &request.creator,
        request.node,
        input.into(),
        handle,
        valid,
    )?;
    put_attributes(reply, set)
}

pub(super) fn statx<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: StatxIn = request.body.take()?;
    let handle = (input.getattr_flags & GETATTR_FH != 0).then_some(input.fh);
    let (stat, valid) = server.file_system.statx(request.node, handle)?;
    reply.put(&StatxOut {
        attr_valid: valid.as_secs(),
        attr_valid_nsec: valid.subsec_nanos(),
        stat,
        ..Default::default()
    })?;
    Ok(Work::Replied)
}

pub(super) fn statfs<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let status = server.file_system.statfs(request.context(), request.node)?;
    reply.put(&StatfsOut { st: status.into() })?;
    Ok(Work::Replied)
}

pub(super) fn access<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: AccessIn = request.body.take()?;
    server
        .file_system
        .access(request.context(), request.node, input.mask)?;
    Ok(Work::Replied)
}

pub(super) fn readlink<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let target = server
        .file_system
        .readlink(request.context(), request.node)?;
    reply.put_bytes(&target)?;
    Ok(Work::Replied)
}
