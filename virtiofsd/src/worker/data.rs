//! Requests that move data, or wait for the host's disk.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use vhost_daemon::queue::{Buffers, Chain, Token};
use vhost_daemon::worker::{Io, IoFile, Submission};

use super::{Cx, refuse, report, send};
use crate::file_system::GuestFileSystem;
use crate::fuse::abi::WriteOut;
use crate::medium::{HostFile, Medium};
use crate::server::{CopyIn, CopyOut, HEADER, Malformed, Server, errno_of, header};
use crate::state::{Entry, Evidence, Recalled};
use crate::sys::{BuffersReader, BuffersWriter, bytes_of};

/// A request whose data are on their way.
#[derive(Debug)]
pub struct Pending {
    token: Token,
    unique: u64,
    /// Where the reply's header goes, and what little comes after it.
    reply: Buffers,
    kind: Kind,
    /// Its place in the journal.
    entry: Option<Arc<Entry>>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The reply's body is already in the guest's buffers.
    Read,
    /// The reply tells how much was written.
    Write {
        /// So much was already.
        done: u32,
    },
    /// The reply is only a header.
    Plain,
}

/// What a write is besides its data.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WriteHow {
    /// `RWF_*`.
    pub(super) flags: i32,
    /// So many of the data, the first ones, are in the file already.
    pub(super) done: u32,
}

/// A request whose data are about to move.
pub(super) struct Started {
    pub(super) token: Token,
    pub(super) unique: u64,
    pub(super) inode: u64,
    pub(super) chain: Chain,
    pub(super) entry: Option<Arc<Entry>>,
}

impl Started {
    pub(super) fn refuse(self, cx: &mut Cx, error: &io::Error) {
        refuse(cx, self.token, self.unique, self.chain.writable, error);
    }

    pub(super) fn read(mut self, cx: &mut Cx, file: HostFile, offset: u64, size: u32) {
        let Some(reply) = self.chain.writable.split_front(HEADER) else {
            return cx.complete(self.token, 0);
        };
        let mut buffers = self.chain.writable;
        buffers.truncate(size as usize);
        let pending = Pending {
            token: self.token,
            unique: self.unique,
            reply,
            kind: Kind::Read,
            entry: self.entry,
        };
        if buffers.is_empty() {
            return pending.finish(cx, Ok(0));
        }
        let io = Io::Read {
            file: IoFile::Open(file.file),
            buffers,
            offset,
        };
        start(cx, &file.medium, pending, io);
    }

    pub(super) fn write(
        mut self,
        cx: &mut Cx,
        file: HostFile,
        (offset, size): (u64, u32),
        WriteHow { flags, done }: WriteHow,
    ) {
        let Some(mut buffers) = self.chain.readable.split_front(size as usize) else {
            cx.guest_fault(&Malformed::Truncated);
            return self.refuse(cx, &Malformed::Truncated.into());
        };
        buffers.advance(done as usize);
        let pending = self.pending(Kind::Write { done });
        if buffers.is_empty() {
            return pending.finish(cx, Ok(0));
        }
        let io = Io::Write {
            file: IoFile::Open(file.file),
            buffers,
            offset,
            flags,
        };
        start(cx, &file.medium, pending, io);
    }

    /// How many of the data of an `O_APPEND` write, the first ones, are in the file already. If there are
    /// none, it is noted that they are about to be.
    pub(super) fn appended<F: GuestFileSystem>(
        &self,
        server: &Server<F>,
        file: &HostFile,
        size: u32,
    ) -> u32 {
        let Some(entry) = &self.entry else {
            return 0;
        };
        if let Some(Recalled::Begun([before, ..])) = entry.recalled() {
            let mut data = vec![0; (size as usize).min(self.chain.readable.len())];
            self.chain.readable.peek(&mut data);
            match server.appended(self.inode, *before, &data) {
                Ok(0) => {}
                // If this process is killed, too, the next one looks from the same place on.
                Ok(done) => return u32::try_from(done).unwrap_or(size),
                Err(error) => tracing::warn!(%error, "an append may have happened twice"),
            }
        }
        begin_with_size(entry, &file.file);
        0
    }

    /// Whether a file's content was shifted already. If not, it is noted that it is about to be.
    pub(super) fn was_shifted(&self, file: &File) -> bool {
        let Some(entry) = &self.entry else {
            return false;
        };
        if let Some(Recalled::Begun([before, ..])) = entry.recalled() {
            let now = file.metadata().map_or(*before, |status| status.len());
            return now != *before;
        }
        begin_with_size(entry, file);
        false
    }

    /// Answers what needs not be done.
    pub(super) fn answer(self, cx: &mut Cx) {
        self.pending(Kind::Plain).finish(cx, Ok(0));
    }

    fn pending(self, kind: Kind) -> Pending {
        Pending {
            token: self.token,
            unique: self.unique,
            reply: self.chain.writable,
            kind,
            entry: self.entry,
        }
    }

    pub(super) fn submit(self, cx: &mut Cx, io: Io) {
        push(cx, self.pending(Kind::Plain), io);
    }

    pub(super) fn copy_out<F: GuestFileSystem>(
        mut self,
        cx: &mut Cx,
        server: &Server<F>,
        copy: &CopyOut,
    ) {
        let Some(reply) = self.chain.writable.split_front(HEADER) else {
            return cx.complete(self.token, 0);
        };
        let mut data = self.chain.writable;
        data.truncate(copy.size as usize);
        let room = data.len();
        // What counts is what was filled, whatever the file system says.
        let result = server
            .copy_out(copy, &mut BuffersWriter(&mut data))
            .map(|_| u32::try_from(room - data.len()).unwrap_or(0));
        let pending = Pending {
            token: self.token,
            unique: self.unique,
            reply,
            kind: Kind::Read,
            entry: self.entry,
        };
        pending.finish(cx, result);
    }

    pub(super) fn copy_in<F: GuestFileSystem>(
        mut self,
        cx: &mut Cx,
        server: &Server<F>,
        copy: &CopyIn,
    ) {
        let Some(mut data) = self.chain.readable.split_front(copy.size() as usize) else {
            cx.guest_fault(&Malformed::Truncated);
            return self.refuse(cx, &Malformed::Truncated.into());
        };
        let result = server
            .copy_in(copy, &mut BuffersReader(&mut data))
            .map(|written| u32::try_from(written).unwrap_or(copy.size()));
        self.pending(Kind::Write { done: 0 }).finish(cx, result);
    }
}

fn begin_with_size(entry: &Entry, file: &File) {
    let mut evidence = Evidence::default();
    evidence[0] = file.metadata().map_or(0, |status| status.len());
    entry.begin(&evidence);
}

/// Moves data at once where that needs no waiting.
fn start(cx: &mut Cx, medium: &Medium, pending: Pending, io: Io) {
    match medium.do_now(&io) {
        Some(result) => pending.finish(cx, result),
        None => push(cx, pending, io),
    }
}

fn push(cx: &mut Cx, pending: Pending, io: Io) {
    if let Submission::Refused(pending, error) = cx.push(pending, io) {
        pending.finish(cx, Err(error));
    }
}

impl Pending {
    /// Writes the reply and gives the request back.
    pub(super) fn finish(self, cx: &mut Cx, result: io::Result<u32>) {
        let moved = match result {
            Ok(moved) => moved,
            Err(error) => {
                report(cx, "moving data", &error);
                if let Kind::Write { done: 1.. } = self.kind {
                    // The guest hears of what is in the file, as of any write that an error cut short.
                    return self.finish(cx, Ok(0));
                }
                if let Some(entry) = &self.entry {
                    entry.done(errno_of(&error), &[]);
                }
                return refuse(cx, self.token, self.unique, self.reply, &error);
            }
        };
        match self.kind {
            Kind::Read => self.finish_read(cx, moved),
            Kind::Write { done } => {
                cx.queue().metrics().bytes_out.add(moved.into());
                let mut reply = [0; HEADER + size_of::<WriteOut>()];
                let body = WriteOut {
                    size: done.saturating_add(moved),
                    padding: 0,
                };
                if let Some(entry) = &self.entry {
                    entry.done(0, bytes_of(&body));
                }
                let header = header(self.unique, size_of::<WriteOut>(), None);
                reply[..HEADER].copy_from_slice(bytes_of(&header));
                reply[HEADER..].copy_from_slice(bytes_of(&body));
                send(cx, self.token, self.reply, &reply);
            }
            Kind::Plain => {
                if let Some(entry) = &self.entry {
                    entry.done(0, &[]);
                }
                send(
                    cx,
                    self.token,
                    self.reply,
                    bytes_of(&header(self.unique, 0, None)),
                );
            }
        }
    }

    fn finish_read(mut self, cx: &mut Cx, moved: u32) {
        cx.queue().metrics().bytes_in.add(moved.into());
        let header = header(self.unique, moved as usize, None);
        let written = self
            .reply
            .write_all(bytes_of(&header))
            .map_or(0, |()| header.len);
        cx.complete(self.token, written);
    }
}
