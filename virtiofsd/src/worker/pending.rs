//! Requests whose data are on their way: going on with what was moved in part, and the answer.

use std::io::{self, Write};
use std::sync::Arc;

use vhost_daemon::queue::{Buffers, Token};
use vhost_daemon::worker::{Io, IoFile, Submission};

use super::{Cx, refuse, report, send};
use crate::fuse::abi::WriteOut;
use crate::medium::Cuts;
use crate::server::{HEADER, errno_of, header};
use crate::state::Entry;
use crate::sys::bytes_of;

/// A request whose data are on their way.
#[derive(Debug)]
pub struct Pending {
    pub(super) token: Token,
    pub(super) unique: u64,
    /// Where the reply's header goes, and what little comes after it.
    pub(super) reply: Buffers,
    pub(super) kind: Kind,
    /// Its place in the journal.
    pub(super) entry: Option<Arc<Entry>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The reply's body is already in the guest's buffers.
    Read {
        /// So much was already, before what is on its way.
        done: u32,
        /// Where it may end before the file does.
        cuts: Cuts,
    },
    /// The reply tells how much was written.
    Write {
        /// So much was already, before what is on its way.
        done: u32,
        /// The guest's kernel does not look at how much was written: it is all or an error.
        delayed: bool,
    },
    /// The reply is only a header.
    Plain,
}

/// A write that must be whole came to an end before its data did, and there is no reason.
pub(super) fn not_all() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl Kind {
    /// Whether there is more to move now that `moved` bytes have been; `io` is then about the rest.
    /// A guest takes a short read for the end of the file, and pages that were written back for
    /// written whatever the count says.
    fn goes_on(&mut self, io: &mut Io, moved: u32) -> bool {
        let (done, buffers, offset) = match (self, io) {
            (
                Self::Read { done, cuts },
                Io::Read {
                    file,
                    buffers,
                    offset,
                },
            ) => {
                let short = moved > 0 && (moved as usize) < buffers.len();
                let end = offset.saturating_add(moved.into());
                if !short || !cuts.may_be_at(end) || end >= size_of_file(file) {
                    return false;
                }
                (done, buffers, offset)
            }
            // Somebody else may have appended something meanwhile.
            (_, Io::Write { flags, .. }) if *flags & libc::RWF_APPEND != 0 => return false,
            (
                Self::Write { done, .. },
                Io::Write {
                    buffers, offset, ..
                },
            ) => {
                if moved == 0 || moved as usize >= buffers.len() {
                    return false;
                }
                (done, buffers, offset)
            }
            _ => return false,
        };
        buffers.advance(moved as usize);
        *offset = offset.saturating_add(moved.into());
        *done = done.saturating_add(moved);
        true
    }

    /// What the answer to an error is, if not that error, after what was moved before.
    fn survives(self, error: &io::Error) -> bool {
        match self {
            // The guest hears of what is in the file, as of any write that an error cut short.
            Self::Write { done, delayed } => done > 0 && !delayed,
            // A file that bypasses the page cache cannot go on from within a block: it ended there.
            Self::Read { done, .. } => done > 0 && error.raw_os_error() == Some(libc::EINVAL),
            Self::Plain => false,
        }
    }
}

/// How long a file is; without end, if that cannot be told.
fn size_of_file(file: &IoFile) -> u64 {
    match file {
        IoFile::Open(file) => file.metadata().map_or(u64::MAX, |status| status.len()),
        IoFile::Registered(_) => u64::MAX,
    }
}

impl Pending {
    /// Hands an operation to the io_uring.
    pub(super) fn push(self, cx: &mut Cx, io: Io) {
        if let Submission::Refused(pending, error) = cx.push(self, io) {
            pending.finish(cx, Err(error));
        }
    }

    /// The kernel has done the operation, or a part of it: goes on with the rest, or answers.
    pub(super) fn moved(mut self, cx: &mut Cx, mut io: Io, result: io::Result<u32>) {
        match result {
            Ok(moved) if self.kind.goes_on(&mut io, moved) => self.push(cx, io),
            Ok(0) if self.must_be_whole() => self.finish(cx, Err(not_all())),
            result => self.finish(cx, result),
        }
    }

    fn must_be_whole(&self) -> bool {
        matches!(self.kind, Kind::Write { delayed: true, .. })
    }

    /// Writes the reply and gives the request back. Of the data, so many more were moved.
    pub(super) fn finish(self, cx: &mut Cx, result: io::Result<u32>) {
        let moved = match result {
            Ok(moved) => moved,
            Err(error) => {
                report(cx, "moving data", &error);
                if self.kind.survives(&error) {
                    return self.finish(cx, Ok(0));
                }
                if let Some(entry) = &self.entry {
                    entry.done(errno_of(&error), &[]);
                }
                return refuse(cx, self.token, self.unique, self.reply, &error);
            }
        };
        match self.kind {
            Kind::Read { done, .. } => self.finish_read(cx, done.saturating_add(moved)),
            Kind::Write { done, .. } => self.finish_write(cx, done.saturating_add(moved)),
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

    fn finish_read(mut self, cx: &mut Cx, size: u32) {
        cx.queue().metrics().bytes_in.add(size.into());
        let header = header(self.unique, size as usize, None);
        let written = self
            .reply
            .write_all(bytes_of(&header))
            .map_or(0, |()| header.len);
        cx.complete(self.token, written);
    }

    fn finish_write(self, cx: &mut Cx, size: u32) {
        cx.queue().metrics().bytes_out.add(size.into());
        let mut reply = [0; HEADER + size_of::<WriteOut>()];
        let body = WriteOut { size, padding: 0 };
        if let Some(entry) = &self.entry {
            entry.done(0, bytes_of(&body));
        }
        let header = header(self.unique, size_of::<WriteOut>(), None);
        reply[..HEADER].copy_from_slice(bytes_of(&header));
        reply[HEADER..].copy_from_slice(bytes_of(&body));
        send(cx, self.token, self.reply, &reply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    /// A read of four pages that was answered with `moved` bytes from a file of `len`: where it goes on,
    /// and how much of it is left then.
    fn rest_of_read(cuts: Cuts, len: u64, moved: u32) -> Option<(u64, usize)> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        let mut io = Io::Read {
            file: IoFile::Open(Arc::new(file)),
            buffers: Buffers::zeroed(4 * 4096, 1).unwrap(),
            offset: PAGE,
        };
        let mut kind = Kind::Read { done: 0, cuts };
        let more = kind.goes_on(&mut io, moved);
        let Io::Read {
            buffers, offset, ..
        } = io
        else {
            panic!("a read stays one");
        };
        let Kind::Read { done, .. } = kind else {
            panic!("a read stays one");
        };
        assert_eq!(done, if more { moved } else { 0 });
        more.then_some((offset, buffers.len()))
    }

    #[test]
    fn a_read_that_was_cut_short_goes_on_up_to_the_end_of_the_file() {
        let page = 4096;
        let (long, pages) = (100 * PAGE, Cuts::AtPages);
        assert_eq!(rest_of_read(pages, long, page), Some((2 * PAGE, 3 * 4096)));
        let odd = Some((PAGE + 10, 4 * 4096 - 10));
        assert_eq!(rest_of_read(Cuts::Anywhere, long, 10), odd);
        // There is no reason to ask how long the file is.
        assert_eq!(rest_of_read(pages, long, 10), None);
        for cuts in [pages, Cuts::Anywhere] {
            assert_eq!(rest_of_read(cuts, long, 4 * page), None, "all of it");
            assert_eq!(rest_of_read(cuts, long, 0), None, "nothing there");
            assert_eq!(rest_of_read(cuts, 2 * PAGE, page), None, "the end");
        }
    }

    #[test]
    fn only_writes_with_a_place_go_on() {
        for (flags, expected) in [(0, true), (libc::RWF_APPEND, false)] {
            let mut io = Io::Write {
                file: IoFile::Registered(0),
                buffers: Buffers::zeroed(100, 1).unwrap(),
                offset: 7,
                flags,
            };
            let mut kind = Kind::Write {
                done: 0,
                delayed: false,
            };
            assert_eq!(kind.goes_on(&mut io, 30), expected);
            let Io::Write {
                buffers, offset, ..
            } = io
            else {
                panic!("a write stays one");
            };
            let rest = if expected { (37, 70) } else { (7, 100) };
            assert_eq!((offset, buffers.len()), rest);
        }
    }

    #[test]
    fn an_error_behind_what_was_moved_is_kept_from_nobody_who_needs_it() {
        let survives = |kind: Kind, errno| kind.survives(&io::Error::from_raw_os_error(errno));
        let write = |done, delayed| Kind::Write { done, delayed };
        assert!(survives(write(1, false), libc::ENOSPC));
        assert!(!survives(write(0, false), libc::ENOSPC));
        assert!(!survives(write(1, true), libc::ENOSPC));
        let read = Kind::Read {
            done: 1,
            cuts: Cuts::Anywhere,
        };
        assert!(!survives(read, libc::EIO));
        assert!(survives(read, libc::EINVAL));
    }
}
