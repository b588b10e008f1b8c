//! Requests about names in directories.

use std::io::Result;

use fuse_backend_rs::api::filesystem::{Entry, OpenOptions};

use super::Server;
use super::decode::Malformed;
use super::reply::Reply;
use super::request::Request;
use super::work::Work;
use crate::file_system::{GuestFileSystem, NewNode, Opened};
use crate::fuse::abi::{
    BatchForgetIn, CreateIn, EntryOut, ForgetIn, ForgetOne, LinkIn, MkdirIn, MknodIn, OpenOut,
    Rename2In, RenameIn,
};
use crate::fuse::{Features, NAME_MAX};

pub(super) fn put_entry(reply: &mut Reply<'_>, entry: Entry) -> Result<Work> {
    reply.put(&EntryOut::from(entry))?;
    Ok(Work::Replied)
}

pub(super) fn put_opened(reply: &mut Reply<'_>, opened: Opened) -> Result<Work> {
    let (entry, handle, options, backing) = opened;
    reply.put(&EntryOut::from(entry))?;
    reply.put(&open_out(handle, options, backing))?;
    Ok(Work::Replied)
}

/// `struct fuse_open_out`; a file system without handles gets 0 for one.
pub(super) fn open_out(handle: Option<u64>, options: OpenOptions, backing: Option<u32>) -> OpenOut {
    OpenOut {
        fh: handle.unwrap_or(0),
        open_flags: options.bits(),
        passthrough: backing.unwrap_or(0),
    }
}

pub(super) fn lookup<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let name = request.body.take_name()?;
    put_entry(
        reply,
        server
            .file_system
            .lookup(request.context(), request.node, name)?,
    )
}

pub(super) fn forget<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: ForgetIn = request.body.take()?;
    server
        .file_system
        .forget(request.context(), request.node, input.nlookup);
    Ok(Work::Silent)
}

pub(super) fn batch_forget<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: BatchForgetIn = request.body.take()?;
    for _ in 0..input.count {
        // The count may lie; the bytes that are there do not.
        let one: ForgetOne = request.body.take()?;
        server
            .file_system
            .forget(request.context(), one.nodeid, one.nlookup);
    }
    Ok(Work::Silent)
}

pub(super) fn symlink<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let name = request.body.take_name()?;
    let target = request.body.take_path()?;
    take_labels(server, request)?;
    let entry = server
        .file_system
        .symlink_as(&request.creator, target, request.node, name)?;
    put_entry(reply, entry)
}

pub(super) fn mknod<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: MknodIn = request.body.take()?;
    let name = request.body.take_name()?;
    take_labels(server, request)?;
    let node = NewNode {
        mode: input.mode,
        rdev: input.rdev,
        umask: input.umask,
    };
    put_entry(
        reply,
        server
            .file_system
            .mknod_as(&request.creator, request.node, name, node)?,
    )
}

pub(super) fn mkdir<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: MkdirIn = request.body.take()?;
    let name = request.body.take_name()?;
    take_labels(server, request)?;
    let (mode, umask) = (input.mode, input.umask);
    let entry = server
        .file_system
        .mkdir_as(&request.creator, request.node, name, mode, umask)?;
    put_entry(reply, entry)
}

pub(super) fn create<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: CreateIn = request.body.take()?;
    let name = request.body.take_name()?;
    take_labels(server, request)?;
    put_opened(
        reply,
        server
            .file_system
            .create_as(&request.creator, request.node, name, input)?,
    )
}

/// Before 7.38 labels come as a last argument; later, with all extensions, and have been taken.
fn take_labels<F: GuestFileSystem>(server: &Server<F>, request: &mut Request<'_>) -> Result<()> {
    if server.features().contains(Features::SECURITY_CTX) {
        request.take_late_labels()?;
    } else {
        request.creator.labels.clear();
    }
    Ok(())
}

/// The request has a name, like `CREATE`; Linux sends "/", and it means nothing.
pub(super) fn tmpfile<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: CreateIn = request.body.take()?;
    request.body.take_string(NAME_MAX)?;
    take_labels(server, request)?;
    put_opened(
        reply,
        server
            .file_system
            .tmpfile(&request.creator, request.node, input)?,
    )
}

pub(super) fn link<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: LinkIn = request.body.take()?;
    let name = request.body.take_name()?;
    let entry = server
        .file_system
        .link(request.context(), input.oldnodeid, request.node, name)?;
    put_entry(reply, entry)
}

pub(super) fn unlink<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let name = request.body.take_name()?;
    server
        .file_system
        .unlink(request.context(), request.node, name)?;
    Ok(Work::Replied)
}

pub(super) fn rmdir<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let name = request.body.take_name()?;
    server
        .file_system
        .rmdir(request.context(), request.node, name)?;
    Ok(Work::Replied)
}

pub(super) fn rename<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: RenameIn = request.body.take()?;
    rename_to(server, request, input.newdir, 0)
}

pub(super) fn rename2<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: Rename2In = request.body.take()?;
    let known = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT;
    if input.flags & !known != 0 {
        return Err(Malformed::OutOfRange.into());
    }
    rename_to(server, request, input.newdir, input.flags)
}

fn rename_to<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    new_parent: u64,
    flags: u32,
) -> Result<Work> {
    let old = request.body.take_name()?;
    let new = request.body.take_name()?;
    server
        .file_system
        .rename(request.context(), request.node, old, new_parent, new, flags)?;
    Ok(Work::Replied)
}
