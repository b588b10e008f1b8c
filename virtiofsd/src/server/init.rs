//! `INIT` and `DESTROY`: a guest's kernel comes and goes.

use std::io::Result;
use std::sync::atomic::Ordering;

use super::reply::Reply;
use super::request::Request;
use super::work::Work;
use super::{MAX_IO, MAX_PAGES, Server, errno};
use crate::file_system::GuestFileSystem;
use crate::fuse::abi::{InitIn, InitIn2, InitOut};
use crate::fuse::{Features, MAJOR, MINOR, OLDEST_MINOR};

/// What the server itself takes care of, whatever the file system.
pub(super) const SERVERS_OWN: Features = Features::from_bits(
    Features::BIG_WRITES.bits()
        | Features::MAX_PAGES.bits()
        | Features::SETXATTR_EXT.bits()
        | Features::INIT_EXT.bits()
        | Features::CREATE_SUPP_GROUP.bits(),
);

pub(super) fn init<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: InitIn = request.body.take()?;
    if input.major > MAJOR {
        // The kernel asks again in the version that this names.
        reply.put(&InitOut {
            major: MAJOR,
            minor: MINOR,
            ..Default::default()
        })?;
        return Ok(Work::Replied);
    }
    if input.major < MAJOR || input.minor < OLDEST_MINOR {
        if let Some(suppressed) = server.limiter.permit() {
            tracing::error!(
                major = input.major,
                minor = input.minor,
                suppressed,
                "the guest's kernel speaks a FUSE version older than {MAJOR}.{OLDEST_MINOR}"
            );
        }
        return Err(errno(libc::EPROTO));
    }
    // A guest that rebooted knows nothing of what it looked up and opened before.
    server.reset();
    let offered = offered(&input, request);
    let agreed = (server.file_system.negotiate(offered)? | SERVERS_OWN) & offered;
    server.features.store(agreed.bits(), Ordering::Release);
    if let Some(state) = &server.state {
        state.session.begin(agreed);
    }
    server.initialised.store(true, Ordering::Release);
    let output = answer(&input, agreed);
    if let Some(suppressed) = server.limiter.permit() {
        tracing::info!(
            minor = output.minor,
            features = format_args!("{:#x}", agreed.bits()),
            suppressed,
            "guest mounted"
        );
    }
    reply.put(&output)?;
    Ok(Work::Replied)
}

/// `flags`, and `flags2` if the kernel says that there are any (7.36).
fn offered(input: &InitIn, request: &mut Request<'_>) -> Features {
    let offered = Features::from_words(input.flags, 0);
    match request.body.take::<InitIn2>() {
        Ok(more) if offered.contains(Features::INIT_EXT) => {
            Features::from_words(input.flags, more.flags2)
        }
        _ => offered,
    }
}

fn answer(input: &InitIn, agreed: Features) -> InitOut {
    let (flags, flags2) = agreed.words();
    InitOut {
        major: MAJOR,
        minor: input.minor.min(MINOR),
        max_readahead: input.max_readahead,
        flags,
        flags2,
        // The ring bounds what is in flight; the kernel need not.
        max_background: u16::MAX,
        congestion_threshold: u16::MAX / 4 * 3,
        max_write: MAX_IO,
        // Times are kept in nanoseconds.
        time_gran: 1,
        max_pages: MAX_PAGES,
        ..Default::default()
    }
}

pub(super) fn destroy<F: GuestFileSystem>(
    server: &Server<F>,
    _request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    server.reset();
    if let Some(suppressed) = server.limiter.permit() {
        tracing::info!(suppressed, "guest unmounted");
    }
    Ok(Work::Replied)
}
