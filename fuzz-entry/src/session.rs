//! A front end's messages on a connection, through the relay, the vhost crate and our session, to a device that
//! completes each request at once. What came with the connection goes with it.
//!
//! A message: request, flags, kind of descriptors that come with it, length of what follows (one byte each), and that.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::SendFlags;
use vhost_daemon::listen::Endpoint;
use vhost_daemon::messages::send;
use vhost_daemon::metrics::Metrics;
use vhost_daemon::queue::{Chain, Token};
use vhost_daemon::session::{Device, Server, Service};
use vhost_daemon::shutdown::Shutdown;
use vhost_daemon::worker::{Context, Io, PollPolicy, QueueWorker};

use crate::playground::descriptors;

/// Messages of one input at most: their answers fit into a socket's buffer.
const MOST: usize = 40;
const MEMORY: u64 = 0x1_0000;
const GET_FEATURES: u32 = 1;
/// Waiting for the last answer: only an input whose last message was cut short waits so long.
const PATIENCE: Duration = Duration::from_millis(100);

struct Echo;

struct EchoWorker;

impl Device for Echo {
    type Worker = EchoWorker;

    fn queues(&self) -> usize {
        2
    }
    fn features(&self) -> u64 {
        0b111
    }
    fn config(&self) -> Vec<u8> {
        vec![7; 16]
    }
    fn worker(&self, _: usize, _: u64) -> io::Result<EchoWorker> {
        Ok(EchoWorker)
    }
}

impl QueueWorker for EchoWorker {
    type Tag = ();

    fn request(&mut self, cx: &mut Context<()>, token: Token, mut chain: Chain) {
        chain.writable.zero_front(16);
        cx.complete(token, 0);
    }
    fn completed(&mut self, _: &mut Context<()>, _: (), _: Io, _: io::Result<u32>) {}
}

/// What may come with a message.
struct Belongings {
    memory: OwnedFd,
    short: OwnedFd,
    event: OwnedFd,
    socket: UnixStream,
}

impl Belongings {
    fn new() -> Self {
        let file = |len| {
            let file = memfd_create("memory", MemfdFlags::CLOEXEC).unwrap();
            ftruncate(&file, len).unwrap();
            file
        };
        Self {
            memory: file(MEMORY),
            short: file(100),
            event: eventfd(1, EventfdFlags::NONBLOCK).unwrap(),
            socket: UnixStream::pair().unwrap().0,
        }
    }

    fn of(&self, kind: u8) -> Vec<BorrowedFd<'_>> {
        match kind % 8 {
            0 | 1 => vec![],
            2 => vec![self.memory.as_fd()],
            3 => vec![self.event.as_fd()],
            4 => vec![self.memory.as_fd(), self.memory.as_fd()],
            5 => vec![self.short.as_fd()],
            6 => vec![self.socket.as_fd()],
            _ => vec![self.event.as_fd(); 9],
        }
    }
}

/// One message; its header says how long it is, unless a flag asks for a lie.
fn message(request: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u32;
    let len = if flags & 0x80 == 0 { len } else { len ^ 8 };
    // Version 1, unless told otherwise.
    let flags = u32::from(flags & 0x7f) ^ 1;
    let header = [u32::from(request), flags, len].map(u32::to_ne_bytes);
    [&header.concat(), payload].concat()
}

/// Sends all messages; how many of them ask for features.
fn say(socket: &UnixStream, mut input: &[u8]) -> usize {
    let belongings = Belongings::new();
    let mut asked = 0;
    for _ in 0..MOST {
        let Some(([request, flags, kind, len], rest)) = input.split_first_chunk::<4>() else {
            break;
        };
        let (payload, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        input = rest;
        let bytes = message(*request, *flags, payload);
        let fds = belongings.of(*kind);
        if send(socket, &bytes, &fds, SendFlags::NOSIGNAL).is_err() {
            break;
        }
        asked += usize::from(u32::from(*request) == GET_FEATURES);
    }
    let last = message(GET_FEATURES as u8, 0, &[]);
    let _ = send(socket, &last, &[], SendFlags::NOSIGNAL);
    asked + 1
}

/// Reads answers up to the last one, or for as long as there are any.
fn listen(mut socket: &UnixStream, mut wanted: usize) {
    let _ = socket.set_read_timeout(Some(PATIENCE));
    while wanted > 0 {
        let mut header = [0; 12];
        if socket.read_exact(&mut header).is_err() {
            return;
        }
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let len = word(8) as usize;
        assert!(len <= 0x1000, "an answer of {len} bytes");
        if socket.read_exact(&mut vec![0; len]).is_err() {
            return;
        }
        wanted -= usize::from(word(0) == GET_FEATURES);
    }
}

/// What one input does.
pub fn run(input: &[u8]) {
    let before = descriptors();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let service = Service {
        endpoint: Endpoint::Inherited(theirs.into()),
        once: true,
        poll: PollPolicy::Fixed(Duration::ZERO),
        metrics: Arc::new(Metrics::of_device("device", "fuzz")),
    };
    let server = Server::open(&Arc::new(Echo), service).unwrap();
    let serving = thread::spawn(move || server.run(&Shutdown::new().unwrap()).unwrap());
    let asked = say(&ours, input);
    listen(&ours, asked);
    drop(ours);
    serving.join().unwrap();
    // The relay's threads end by themselves.
    let deadline = Instant::now() + Duration::from_secs(10);
    while descriptors() > before && Instant::now() < deadline {
        thread::yield_now();
    }
    assert!(descriptors() <= before, "descriptors leak");
}
