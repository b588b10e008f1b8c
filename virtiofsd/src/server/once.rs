//! Requests that must not happen twice, when an earlier process may have carried them out.
//!
//! The journal tells what became of them ([`crate::state::Journal`]). Of one that was begun and has no
//! answer, the evidence decides: which files had its names before, and which have them now.

use std::ffi::CStr;
use std::io::Result;

use super::entry::{put_entry, put_opened};
use super::reply::Reply;
use super::request::Request;
use super::work::Work;
use super::{Server, dispatch, errno, xattr};
use crate::file_system::{GuestFileSystem, Trace};
use crate::fuse::Opcode;
use crate::fuse::abi::{
    CreateIn, FallocateIn, LinkIn, MkdirIn, MknodIn, Rename2In, RenameIn, WriteIn,
};
use crate::state::{Entry, Evidence, Recalled};

/// A name that a request is about: its directory's node, and the name.
type Named<'a> = (u64, &'a CStr);

/// Whether the journal has to know of a request, because it must not happen twice, or would leave
/// something open that nobody knows of.
pub fn happens_once(request: &Request<'_>) -> bool {
    match request.opcode {
        Opcode::Lookup
        | Opcode::Forget
        | Opcode::BatchForget
        | Opcode::Symlink
        | Opcode::Mknod
        | Opcode::Mkdir
        | Opcode::Create
        | Opcode::Tmpfile
        | Opcode::Link
        | Opcode::Unlink
        | Opcode::Rmdir
        | Opcode::Rename
        | Opcode::Rename2
        | Opcode::Open
        | Opcode::Opendir
        | Opcode::Setxattr
        | Opcode::Removexattr => true,
        // What shifts a file's content.
        Opcode::Fallocate => {
            let shifts = libc::FALLOC_FL_COLLAPSE_RANGE | libc::FALLOC_FL_INSERT_RANGE;
            let input = request.body.clone().take::<FallocateIn>();
            input.is_ok_and(|input| input.mode & shifts.unsigned_abs() != 0)
        }
        Opcode::Write => {
            let input = request.body.clone().take::<WriteIn>();
            input.is_ok_and(|input| input.flags & libc::O_APPEND.unsigned_abs() != 0)
        }
        _ => false,
    }
}

/// As [`dispatch::dispatch`], for a request with an entry in the journal.
pub(super) fn dispatch_once<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
    entry: &Entry,
) -> Result<Work> {
    match entry.recalled() {
        Some(Recalled::Done(0, body)) => {
            if request.opcode.is_silent() {
                return Ok(Work::Silent);
            }
            reply.put_bytes(body)?;
            return Ok(Work::Replied);
        }
        Some(Recalled::Done(error, _)) => return Err(errno(*error)),
        Some(Recalled::Begun(before)) => {
            if let Some(settled) = settle(server, request, before, reply) {
                return note(entry, reply, settled);
            }
        }
        None => {}
    }
    if !moves_data(request.opcode) {
        entry.begin(&evidence(server, request));
    }
    let result = dispatch::dispatch(server, request, reply);
    let result = match entry.recalled() {
        Some(Recalled::Begun(before)) => forgive(request.opcode, before, result),
        _ => result,
    };
    note(entry, reply, result)
}

/// These begin when their data move: the worker notes it.
fn moves_data(opcode: Opcode) -> bool {
    matches!(opcode, Opcode::Write | Opcode::Fallocate)
}

fn note(entry: &Entry, reply: &Reply<'_>, result: Result<Work>) -> Result<Work> {
    match &result {
        Ok(Work::Replied | Work::Silent) => entry.done(0, reply.body()),
        Ok(Work::Elsewhere | Work::Blocked) => entry.withdraw(),
        // The worker notes how it ends.
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => entry.withdraw(),
        Err(error) => entry.done(super::reply::errno_of(error), &[]),
    }
    result
}

/// What is so before a request is carried out.
fn evidence<F: GuestFileSystem>(server: &Server<F>, request: &Request<'_>) -> Evidence {
    let mut evidence = Evidence::default();
    if let Some(exists) = xattr::exists(server, request) {
        evidence[0] = exists.into();
    } else if let Some(names) = names(request) {
        let traces = names.map(|name| trace(server, name));
        evidence.copy_from_slice(traces.as_flattened());
    }
    evidence
}

fn trace<F: GuestFileSystem>(server: &Server<F>, name: Option<Named<'_>>) -> Trace {
    name.and_then(|(parent, name)| server.file_system.trace(parent, name))
        .unwrap_or_default()
}

/// The names that a request makes or takes away.
fn names<'a>(request: &Request<'a>) -> Option<[Option<Named<'a>>; 2]> {
    let mut body = request.body.clone();
    let node = request.node;
    let renamed = |mut body: super::Body<'a>, to| {
        let old = body.take_name().ok()?;
        let new = body.take_name().ok()?;
        Some([Some((node, old)), Some((to, new))])
    };
    match request.opcode {
        Opcode::Rename => {
            let input: RenameIn = body.take().ok()?;
            return renamed(body, input.newdir);
        }
        Opcode::Rename2 => {
            let input: Rename2In = body.take().ok()?;
            return renamed(body, input.newdir);
        }
        Opcode::Symlink | Opcode::Unlink | Opcode::Rmdir => {}
        Opcode::Mknod => drop(body.take::<MknodIn>().ok()?),
        Opcode::Mkdir => drop(body.take::<MkdirIn>().ok()?),
        Opcode::Create => drop(body.take::<CreateIn>().ok()?),
        Opcode::Link => drop(body.take::<LinkIn>().ok()?),
        _ => return None,
    }
    Some([Some((node, body.take_name().ok()?)), None])
}

/// Answers a request that an earlier process has begun, if it was carried out.
fn settle<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    before: &Evidence,
    reply: &mut Reply<'_>,
) -> Option<Result<Work>> {
    // Once too often would lose the node that the guest still has; once too few costs memory.
    if matches!(request.opcode, Opcode::Forget | Opcode::BatchForget) {
        return Some(Ok(Work::Silent));
    }
    let (parent, name) = names(request)?[0]?;
    let (before, now) = (&before[..4], trace(server, Some((parent, name))));
    let was_there = before != Trace::default().as_slice();
    match request.opcode {
        Opcode::Unlink | Opcode::Rmdir | Opcode::Rename | Opcode::Rename2 => {
            (was_there && before != now.as_slice()).then_some(Ok(Work::Replied))
        }
        // Symlink, Mknod, Mkdir, Create, Link.
        _ if was_there || now == Trace::default() => None,
        Opcode::Create => Some(open_made(server, request, name, reply)),
        _ => {
            let entry = server.file_system.lookup(request.context(), parent, name);
            Some(entry.and_then(|entry| put_entry(reply, entry)))
        }
    }
}

/// Answers a `CREATE` that made the file, and had not opened it for anyone.
fn open_made<F: GuestFileSystem>(
    server: &Server<F>,
    request: &Request<'_>,
    name: &CStr,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let mut input: CreateIn = request.body.clone().take()?;
    input.flags &= !(libc::O_EXCL | libc::O_TRUNC).unsigned_abs();
    let opened = server
        .file_system
        .create_as(&request.creator, request.node, name, input)?;
    put_opened(reply, opened)
}

/// An attribute that was not there before and is there now, or the other way round, is the earlier
/// process' doing.
fn forgive(opcode: Opcode, before: &Evidence, result: Result<Work>) -> Result<Work> {
    let existed = before[0] != 0;
    match (opcode, &result) {
        (Opcode::Setxattr, Err(error))
            if !existed && error.raw_os_error() == Some(libc::EEXIST) =>
        {
            Ok(Work::Replied)
        }
        (Opcode::Removexattr, Err(error))
            if existed && error.raw_os_error() == Some(libc::ENODATA) =>
        {
            Ok(Work::Replied)
        }
        _ => result,
    }
}
