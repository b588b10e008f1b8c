//! Requests about locks, and `INTERRUPT`, which mostly ends the wait for one.

use std::io::{ErrorKind, Result};

use super::Server;
use super::reply::Reply;
use super::request::Request;
use super::work::Work;
use crate::file_system::GuestFileSystem;
use crate::fuse::Features;
use crate::fuse::abi::{InterruptIn, LkIn, LkOut};

pub(super) fn getlk<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let LkIn {
        fh,
        owner,
        lk,
        lk_flags,
        ..
    } = request.body.take()?;
    let (context, node) = (request.context(), request.node);
    let lk = server
        .file_system
        .getlk(context, node, fh, owner, lk.into(), lk_flags)?;
    reply.put(&LkOut { lk: lk.into() })?;
    Ok(Work::Replied)
}

pub(super) fn setlk<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    set(server, request)?;
    Ok(Work::Replied)
}

/// Tries; who has to wait is tried again when a lock goes, or after a while: another guest's, or the
/// host's, go without a word.
pub(super) fn setlkw<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    match set(server, request) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Work::Blocked),
        result => result.map(|()| Work::Replied),
    }
}

fn set<F: GuestFileSystem>(server: &Server<F>, request: &mut Request<'_>) -> Result<()> {
    let LkIn {
        fh,
        owner,
        lk,
        lk_flags,
        ..
    } = request.body.take()?;
    let (context, node) = (request.context(), request.node);
    server
        .file_system
        .setlk(context, node, fh, owner, lk.into(), lk_flags)?;
    // Also a lock that was set may be weaker than the one it replaces.
    released(server);
    Ok(())
}

/// Locks may have gone: who waits for one tries again.
pub(super) fn released<F: GuestFileSystem>(server: &Server<F>) {
    let locks = Features::POSIX_LOCKS | Features::FLOCK_LOCKS;
    if server.features() & locks != Features::NONE {
        server.interrupts.wake_all();
    }
}

pub(super) fn interrupt<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let InterruptIn { unique } = request.body.take()?;
    server.interrupts.interrupt(unique);
    Ok(Work::Silent)
}
