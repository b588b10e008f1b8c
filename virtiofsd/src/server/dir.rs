//! Requests that list directories.

use std::io::Result;

use fuse_backend_rs::api::filesystem::{DirEntry, Entry};

use super::entry::open_out;
use super::reply::Reply;
use super::request::Request;
use super::work::Work;
use super::{MAX_IO, Server};
use crate::file_system::GuestFileSystem;
use crate::fuse::abi::{Dirent, EntryOut, OpenIn, ReadIn, ReleaseIn};

/// Entries start on eight bytes (`FUSE_DIRENT_ALIGN`).
const ALIGNMENT: usize = 8;

pub(super) fn opendir<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: OpenIn = request.body.take()?;
    let (handle, options) =
        server
            .file_system
            .opendir(request.context(), request.node, input.flags)?;
    reply.put(&open_out(handle, options, None))?;
    Ok(Work::Replied)
}

pub(super) fn readdir<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: ReadIn = request.body.take()?;
    let mut listing = Listing::new(reply, input.size);
    let (size, offset) = (listing.size(), input.offset);
    let listed = server.file_system.readdir(
        request.context(),
        request.node,
        input.fh,
        size,
        offset,
        &mut |entry| listing.add(None, &entry),
    );
    listing.end(listed)
}

pub(super) fn readdirplus<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: ReadIn = request.body.take()?;
    let mut listing = Listing::new(reply, input.size);
    let (size, offset) = (listing.size(), input.offset);
    let listed = server.file_system.readdirplus(
        request.context(),
        request.node,
        input.fh,
        size,
        offset,
        &mut |dirent, entry| listing.add(Some(entry), &dirent),
    );
    listing.end(listed)
}

pub(super) fn releasedir<F: GuestFileSystem>(
    server: &Server<F>,
    request: &mut Request<'_>,
    _reply: &mut Reply<'_>,
) -> Result<Work> {
    let input: ReleaseIn = request.body.take()?;
    server
        .file_system
        .releasedir(request.context(), request.node, input.flags, input.fh)?;
    Ok(Work::Replied)
}

/// Directory entries packed into a reply.
struct Listing<'r, 'b> {
    reply: &'r mut Reply<'b>,
    /// Bytes left of what the guest asked for and has room for.
    left: usize,
    empty: bool,
}

impl<'r, 'b> Listing<'r, 'b> {
    fn new(reply: &'r mut Reply<'b>, size: u32) -> Self {
        let left = (size.min(MAX_IO) as usize).min(reply.room());
        Self {
            reply,
            left,
            empty: true,
        }
    }

    fn size(&self) -> u32 {
        // At most MAX_IO.
        u32::try_from(self.left).unwrap_or(MAX_IO)
    }

    /// Packs one entry; 0, and nothing done, when it does not fit.
    fn add(&mut self, entry: Option<Entry>, dirent: &DirEntry<'_>) -> Result<usize> {
        let plus = if entry.is_some() {
            size_of::<EntryOut>()
        } else {
            0
        };
        let len = plus + size_of::<Dirent>() + dirent.name.len();
        let padded = len.next_multiple_of(ALIGNMENT);
        let Ok(namelen) = u32::try_from(dirent.name.len()) else {
            return Ok(0);
        };
        if padded > self.left {
            return Ok(0);
        }
        if let Some(entry) = entry {
            self.reply.put(&EntryOut::from(entry))?;
        }
        let (ino, off, type_) = (dirent.ino, dirent.offset, dirent.type_);
        self.reply.put(&Dirent {
            ino,
            off,
            namelen,
            type_,
        })?;
        self.reply.put_bytes(dirent.name)?;
        self.reply.put_bytes(&[0; ALIGNMENT][..padded - len])?;
        self.left -= padded;
        self.empty = false;
        Ok(padded)
    }

    /// An error after some entries is for the next request: those that are packed may hold
    /// lookups, which the guest must hear of.
    fn end(self, listed: Result<()>) -> Result<Work> {
        match listed {
            Err(error) if self.empty => Err(error),
            _ => Ok(Work::Replied),
        }
    }
}
