//! Requests that move data, or wait for the host's disk.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vhost_daemon::queue::{Buffers, Chain, Token};
use vhost_daemon::worker::{Io, IoFile};

use super::pending::{Kind, Pending, not_all};
use super::{Cx, refuse};
use crate::file_system::GuestFileSystem;
use crate::medium::{Cuts, HostFile, Medium};
use crate::server::{CopyIn, CopyOut, HEADER, Malformed, Server};
use crate::state::{Entry, Evidence, Recalled};
use crate::sys::{BuffersReader, BuffersWriter};
use crate::write_mode::WriteMode;

/// What a write is besides its data.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WriteHow {
    /// As the guest asks.
    pub(super) mode: WriteMode,
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
            kind: Kind::Read {
                done: 0,
                cuts: file.medium.cuts(),
            },
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
        WriteHow { mode, done }: WriteHow,
    ) {
        let Some(mut buffers) = self.chain.readable.split_front(size as usize) else {
            cx.guest_fault(&Malformed::Truncated);
            return self.refuse(cx, &Malformed::Truncated.into());
        };
        buffers.advance(done as usize);
        let pending = self.pending(Kind::Write {
            done,
            delayed: mode.delayed,
        });
        if buffers.is_empty() {
            return pending.finish(cx, Ok(0));
        }
        let io = Io::Write {
            file: IoFile::Open(file.file),
            buffers,
            offset,
            flags: mode.flags,
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
        self.pending(Kind::Plain).push(cx, io);
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
            kind: Kind::Read {
                done: 0,
                cuts: Cuts::Anywhere,
            },
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
        let result = copy_all_in(server, copy, &mut data);
        self.pending(Kind::Write {
            done: 0,
            delayed: copy.mode.delayed,
        })
        .finish(cx, result);
    }
}

/// Writes through the `FileSystem` until all is written or nothing more can be.
fn copy_all_in<F: GuestFileSystem>(
    server: &Server<F>,
    copy: &CopyIn,
    data: &mut Buffers,
) -> io::Result<u32> {
    let (mut done, mut error) = (0, None);
    while done < copy.size() {
        let before = data.len();
        match server.copy_in(copy, done, &mut BuffersReader(data)) {
            Ok(moved) => {
                let moved = u32::try_from(moved).unwrap_or(u32::MAX);
                done = done.saturating_add(moved).min(copy.size());
                // One that takes more data than it writes leaves no place to go on from.
                let all_taken_is_written = before - data.len() == moved as usize;
                if moved == 0 || copy.mode.appends() || !all_taken_is_written {
                    break;
                }
            }
            Err(failed) => {
                error = Some(failed);
                break;
            }
        }
    }
    match error {
        Some(error) if done == 0 || copy.mode.delayed => Err(error),
        None if done < copy.size() && copy.mode.delayed => Err(not_all()),
        _ => Ok(done),
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
        Some(result) => pending.moved(cx, io, result),
        None => pending.push(cx, io),
    }
}
