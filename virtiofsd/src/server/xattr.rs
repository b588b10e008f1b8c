//! Requests about extended attributes.

use std::ffi::CStr;
use std::io::Result;

use fuse_backend_rs::api::filesystem::{GetxattrReply, ListxattrReply};

use super::decode::Malformed;
use super::reply::Reply;
use super::request::Request;
use super::work::Work;
use super::{Server, errno};
use crate::file_system::GuestFileSystem;
use crate::fuse::abi::{
    GetxattrIn, GetxattrOut, SETXATTR_ACL_KILL_SGID, SetxattrIn, SetxattrInExt,
};
use crate::fuse::{Features, Opcode, XATTR_NAME_MAX, XATTR_SIZE_MAX};

/// xattr(7): a name has at least one byte.
fn take_name<'a>(request: &mut Request<'a>) -> Result<&'a CStr> {
    match request.body.take_string(XATTR_NAME_MAX) {
        Err(Malformed::TooLong) => Err(errno(libc::ERANGE)),
        Ok(name) if name.is_empty() => Err(errno(libc::ERANGE)),
        other => Ok(other?),
    }
}

pub(super) fn setxattr<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let input = if server.features().contains(Features::SETXATTR_EXT) {
        request.body.take::<SetxattrInExt>()?
    } else {
        let SetxattrIn { size, flags } = request.body.take()?;
        SetxattrInExt {
            size,
            flags,
            ..Default::default()
        }
    };
    let name = take_name(request)?;
    let size = input.size as usize;
    if size > XATTR_SIZE_MAX {
        return Err(errno(libc::E2BIG));
    }
    let value = request.body.take_bytes(size)?;
    let kill_sgid = input.setxattr_flags & SETXATTR_ACL_KILL_SGID != 0;
    let how = (input.flags, kill_sgid);
    server
        .file_system
        .setxattr_and_mode(request.context(), request.node, name, value, how)?;
    Ok(Work::Replied)
}

/// Whether the attribute that a request makes or takes away is there; `None` for other requests.
pub(super) fn exists<F: GuestFileSystem>(
    server: &Server<F>,
    request: &Request<'_>,
) -> Option<bool> {
    let mut body = request.body.clone();
    match request.opcode {
        Opcode::Setxattr if server.features().contains(Features::SETXATTR_EXT) => {
            body.take::<SetxattrInExt>().ok()?;
        }
        Opcode::Setxattr => drop(body.take::<SetxattrIn>().ok()?),
        Opcode::Removexattr => {}
        _ => return None,
    }
    let name = body.take_string(XATTR_NAME_MAX).ok()?;
    let there = server
        .file_system
        .getxattr(request.context(), request.node, name, 0);
    Some(there.is_ok())
}

pub(super) fn getxattr<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: GetxattrIn = request.body.take()?;
    let name = take_name(request)?;
    let (context, node) = (request.context(), request.node);
    match server
        .file_system
        .getxattr(context, node, name, input.size)?
    {
        GetxattrReply::Count(size) => put_size(reply, size),
        GetxattrReply::Value(value) => put_value(reply, &value, input.size),
    }
}

pub(super) fn listxattr<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: GetxattrIn = request.body.take()?;
    match server
        .file_system
        .listxattr(request.context(), request.node, input.size)?
    {
        ListxattrReply::Count(size) => put_size(reply, size),
        ListxattrReply::Names(names) => put_value(reply, &names, input.size),
    }
}

pub(super) fn removexattr<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let name = take_name(request)?;
    server
        .file_system
        .removexattr(request.context(), request.node, name)?;
    Ok(Work::Replied)
}

fn put_size(reply: &mut Reply<'_>, size: u32) -> Result<Work> {
    reply.put(&GetxattrOut { size, padding: 0 })?;
    Ok(Work::Replied)
}

fn put_value(reply: &mut Reply<'_>, value: &[u8], size: u32) -> Result<Work> {
    if value.len() > (size as usize).min(reply.room()) {
        return Err(errno(libc::ERANGE));
    }
    reply.put_bytes(value)?;
    Ok(Work::Replied)
}
