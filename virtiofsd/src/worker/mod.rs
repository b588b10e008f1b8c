//! One queue's worker: the only place that knows both the ring and the FUSE server.
//!
//! The header and the arguments of a request are copied out of guest memory once and decoded from
//! the copy. Data never pass through the daemon: reads and writes go between the host's file and
//! the guest's buffers, at once or on the queue's io_uring. What may wait long goes away ([`away`]).

mod away;
mod data;
mod pending;

use std::io::{self, Read, Write};
use std::sync::Arc;

use vhost_daemon::queue::{Buffers, Chain, Token};
use vhost_daemon::worker::{Context, Io, IoFile, QueueWorker, WatchId};

use crate::file_system::GuestFileSystem;
use crate::fuse::Opcode;
use crate::fuse::abi::InHeader;
use crate::helpers::Helpers;
use crate::server::{
    Interrupt, Malformed, Reply, Request, Server, Work, body_len, happens_once, header,
};
use crate::state::{Entry, Journal};
use crate::sys::{bytes_of, read_front};
use away::Away;
use data::{Started, WriteHow};

pub use pending::Pending;

/// Serves the requests of one queue.
pub struct FsWorker<F> {
    server: Arc<Server<F>>,
    helpers: Arc<Helpers>,
    /// A request's arguments, while it is being served.
    body: Vec<u8>,
    /// A reply, while it is being built.
    reply: Vec<u8>,
    /// Requests that wait.
    away: Away,
    /// What becomes of requests that must not happen twice.
    journal: Option<Journal>,
}

type Cx = Context<Pending>;

/// A request taken from the ring, its header and arguments copied.
#[derive(Debug)]
struct Taken {
    token: Token,
    header: InHeader,
    chain: Chain,
    /// Its place in the journal, if it must not happen twice.
    entry: Option<Arc<Entry>>,
}

impl<F: GuestFileSystem> FsWorker<F> {
    /// A worker for queue `index` of `server`'s. `helpers` do what may wait long.
    ///
    /// # Errors
    /// When there is no descriptor left to be woken by.
    pub fn new(server: Arc<Server<F>>, helpers: Arc<Helpers>, index: usize) -> io::Result<Self> {
        Ok(Self {
            journal: server.state().map(|state| state.journal(index)),
            server,
            helpers,
            body: Vec::new(),
            reply: Vec::new(),
            away: Away::new()?,
        })
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
        let mut taken = Taken {
            token,
            header,
            chain,
            entry: None,
        };
        let mut reply = Reply::new(&mut self.reply, taken.chain.writable.len());
        let served = match Request::decode(&header, &self.body) {
            Ok(Some(mut request)) => {
                request.creator.may_wait = false;
                if let Some(journal) = &self.journal
                    && happens_once(&request)
                {
                    taken.entry = journal.enter(request.unique, request.opcode);
                    request.entry = taken.entry.clone();
                }
                self.server.serve(&mut request, &mut reply)
            }
            Ok(None) => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
            Err(fault) => {
                cx.guest_fault(&fault);
                Err(fault.into())
            }
        };
        match served {
            Ok(Work::Elsewhere) => {
                let body = self.body.clone();
                self.away.send(&self.server, &self.helpers, taken, body);
            }
            Ok(Work::Blocked) => self.away.wait(cx, &self.server, taken, self.body.clone()),
            served => finish(cx, &self.server, taken, reply, served),
        }
        let leftovers = self.server.file_system().leftovers();
        if !leftovers.is_empty() {
            self.helpers.submit(Box::new(move || drop(leftovers)));
        }
    }
}

/// Carries a request out once more. With an interrupt it may wait.
fn serve_again<F: GuestFileSystem>(
    server: &Server<F>,
    header: &InHeader,
    (body, entry): (&[u8], Option<Arc<Entry>>),
    interrupt: Option<Arc<Interrupt>>,
    reply: &mut Reply<'_>,
) -> io::Result<Work> {
    // It was decoded before.
    let mut request = Request::decode(header, body)?.ok_or(io::ErrorKind::InvalidInput)?;
    request.creator.may_wait = interrupt.is_some();
    request.interrupt = interrupt;
    request.entry = entry;
    server.serve(&mut request, reply)
}

/// Answers a request that has been carried out, or does what is left of it.
fn finish<F: GuestFileSystem>(
    cx: &mut Cx,
    server: &Server<F>,
    taken: Taken,
    reply: Reply<'_>,
    served: io::Result<Work>,
) {
    let result = match served {
        Ok(Work::Silent) => return cx.complete(taken.token, 0),
        Ok(Work::Replied) => Ok(()),
        Ok(work) => return move_data(cx, server, taken, work),
        Err(_) if is_silent(&taken.header) => return cx.complete(taken.token, 0),
        Err(error) => {
            report(cx, "serving a request", &error);
            Err(error)
        }
    };
    let reply = reply.finish(taken.header.unique, result);
    send(cx, taken.token, taken.chain.writable, reply);
}

/// Moves data, or hands that to the io_uring.
fn move_data<F: GuestFileSystem>(cx: &mut Cx, server: &Server<F>, taken: Taken, work: Work) {
    let request = Started {
        token: taken.token,
        unique: taken.header.unique,
        inode: taken.header.nodeid,
        chain: taken.chain,
        entry: taken.entry,
    };
    match work {
        Work::Read { file, offset, size } => request.read(cx, file, offset, size),
        Work::Write {
            file,
            offset,
            size,
            mode,
        } => {
            let done = if mode.appends() {
                request.appended(server, &file, size)
            } else {
                0
            };
            let how = WriteHow { mode, done };
            request.write(cx, file, (offset, size), how);
        }
        Work::Sync { file, data_only } => {
            let file = IoFile::Open(file);
            request.submit(cx, Io::Fsync { file, data_only });
        }
        Work::Allocate {
            file,
            mode,
            offset,
            len,
        } => {
            if request.was_shifted(&file) {
                return request.answer(cx);
            }
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
        Work::CopyOut(copy) => request.copy_out(cx, server, &copy),
        Work::CopyIn(copy) => request.copy_in(cx, server, &copy),
        Work::Replied | Work::Silent | Work::Elsewhere | Work::Blocked => {
            request.refuse(cx, &io::Error::from_raw_os_error(libc::EIO));
        }
    }
}

impl<F: GuestFileSystem> QueueWorker for FsWorker<F> {
    type Tag = Pending;

    fn start(&mut self, cx: &mut Cx) -> io::Result<()> {
        if let Some(state) = self.server.state() {
            // The io_uring then keeps it locked until the kernel has finished all writes: they must not
            // land after what the next process has written.
            cx.register_files(&[state.lock()])?;
        }
        self.away.watch(cx)
    }

    fn turn(&mut self, cx: &mut Cx) -> usize {
        self.away.try_again(cx, &self.server);
        for done in 0..Cx::BATCH {
            match cx.pop() {
                Some((token, chain)) => self.request(cx, token, chain),
                None => return done,
            }
        }
        Cx::BATCH
    }

    fn request(&mut self, cx: &mut Cx, token: Token, chain: Chain) {
        self.serve(cx, token, chain);
    }

    fn completed(&mut self, cx: &mut Cx, tag: Pending, io: Io, result: io::Result<u32>) {
        tag.moved(cx, io, result);
    }

    fn ready(&mut self, cx: &mut Cx, watch: WatchId) {
        if self.away.is_told_by(watch) {
            self.away.woken(cx, &self.server);
        }
    }

    fn stop(&mut self, cx: &mut Cx) {
        self.away.stop(cx, &self.server);
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
