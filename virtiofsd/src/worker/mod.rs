//! One queue's worker: the only place that knows both the ring and the FUSE server.
//!
//! The header and the arguments of a request are copied out of guest memory once and decoded from
//! the copy. Data never pass through the daemon: reads and writes go between the host's file and
//! the guest's buffers, on the queue's io_uring.

mod data;

use std::io::{self, Read, Write};
use std::sync::Arc;

use vhost_daemon::queue::{Buffers, Chain, Token};
use vhost_daemon::worker::{Context, Io, IoFile, QueueWorker};

use crate::file_system::GuestFileSystem;
use crate::fuse::Opcode;
use crate::fuse::abi::InHeader;
use crate::server::{Malformed, Reply, Request, Server, Work, body_len, header};
use crate::sys::{bytes_of, read_front};
use data::Started;

pub use data::Pending;

/// Serves the requests of one queue.
pub struct FsWorker<F> {
    server: Arc<Server<F>>,
    /// A request's arguments, while it is being served.
    body: Vec<u8>,
    /// A reply, while it is being built.
    reply: Vec<u8>,
}

type Cx = Context<Pending>;

impl<F: GuestFileSystem> FsWorker<F> {
    /// A worker for a queue of `server`'s.
    pub fn new(server: Arc<Server<F>>) -> Self {
        Self {
            server,
            body: Vec::new(),
            reply: Vec::new(),
        }
    }

    fn serve(&mut self, cx: &mut Cx, token: Token, mut chain: Chain) {
        let header = match take_header(&mut chain.readable, &mut self.body) {
            Ok(header) => header,
            Err((header, fault)) => {
                cx.guest_fault(&fault);
                if is_silent(&header) {
                    return cx.complete(token, 0);
                }
                return refuse(cx, token, header.unique, chain.writable, &fault.into());
            }
        };
        let mut reply = Reply::new(&mut self.reply, chain.writable.len());
        let served = match Request::decode(&header, &self.body) {
            Ok(Some(mut request)) => self.server.serve(&mut request, &mut reply),
            Ok(None) => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
            Err(fault) => {
                cx.guest_fault(&fault);
                Err(fault.into())
            }
        };
        let result = match served {
            Ok(Work::Silent) => return cx.complete(token, 0),
            Ok(Work::Replied) => Ok(()),
            Ok(work) => return self.work(cx, token, header.unique, chain, work),
            Err(_) if is_silent(&header) => return cx.complete(token, 0),
            Err(error) => {
                report(cx, "serving a request", &error);
                Err(error)
            }
        };
        let reply = reply.finish(header.unique, result);
        send(cx, token, chain.writable, reply);
    }

    /// Moves data, or hands that to the io_uring.
    fn work(&mut self, cx: &mut Cx, token: Token, unique: u64, chain: Chain, work: Work) {
        let request = Started {
            token,
            unique,
            chain,
        };
        match work {
            Work::Read { file, offset, size } => request.read(cx, file, offset, size),
            Work::Write {
                file,
                offset,
                size,
                append,
            } => {
                let flags = if append { libc::RWF_APPEND } else { 0 };
                request.write(cx, file, (offset, size), flags);
            }
            Work::Sync { file, data_only } => {
                request.submit(
                    cx,
                    Io::Fsync {
                        file: IoFile::Open(file),
                        data_only,
                    },
                );
            }
            Work::Allocate {
                file,
                mode,
                offset,
                len,
            } => {
                // The mode is a set of flags; the kernel refuses those it does not know.
                let (file, mode) = (IoFile::Open(file), mode.cast_signed());
                request.submit(
                    cx,
                    Io::Fallocate {
                        file,
                        mode,
                        offset,
                        len,
                    },
                );
            }
            Work::CopyOut(copy) => request.copy_out(cx, &self.server, &copy),
            Work::CopyIn(copy) => request.copy_in(cx, &self.server, &copy),
            Work::Replied | Work::Silent => cx.complete(request.token, 0),
        }
    }
}

impl<F: GuestFileSystem> QueueWorker for FsWorker<F> {
    type Tag = Pending;

    fn request(&mut self, cx: &mut Cx, token: Token, chain: Chain) {
        self.serve(cx, token, chain);
    }

    fn completed(&mut self, cx: &mut Cx, tag: Pending, _io: Io, result: io::Result<u32>) {
        tag.finish(cx, result);
    }
}

/// Copies header and arguments out of guest memory, the arguments into `body`. With what is wrong
/// comes what there is of the header.
fn take_header(
    readable: &mut Buffers,
    body: &mut Vec<u8>,
) -> Result<InHeader, (InHeader, Malformed)> {
    let mut bytes = [0; size_of::<InHeader>()];
    let available = readable.len();
    let got = readable.read(&mut bytes).unwrap_or(0);
    let (header, _) = read_front::<InHeader>(&bytes).unwrap_or_default();
    if got < bytes.len() || header.len as usize > available {
        return Err((header, Malformed::Truncated));
    }
    let len = body_len(&header).map_err(|fault| (header, fault))?;
    // `len` is bounded, and the guest has sent as many bytes: `header.len` said so and was checked.
    body.clear();
    body.resize(len, 0);
    readable
        .read_exact(body)
        .map_err(|_| (header, Malformed::Truncated))?;
    Ok(header)
}

/// Whether no answer is due, not even about an error.
fn is_silent(header: &InHeader) -> bool {
    Opcode::from_number(header.opcode).is_some_and(Opcode::is_silent)
}

/// Counts and logs an error of the host's. Others are the guest's own doing, and its to hear of.
fn report(cx: &mut Cx, what: &str, error: &io::Error) {
    if error.raw_os_error() == Some(libc::EIO) {
        cx.backend_error(what, error);
    }
}

/// Answers with an error, if there is room for one.
fn refuse(cx: &mut Cx, token: Token, unique: u64, writable: Buffers, error: &io::Error) {
    send(
        cx,
        token,
        writable,
        bytes_of(&header(unique, 0, Some(error))),
    );
}

/// Copies a whole reply to the guest. A reply without room is none: length 0.
fn send(cx: &mut Cx, token: Token, mut writable: Buffers, reply: &[u8]) {
    let fits = reply.len() <= writable.len() && writable.write_all(reply).is_ok();
    let len = if fits {
        u32::try_from(reply.len()).unwrap_or(0)
    } else {
        0
    };
    cx.complete(token, len);
}
