//! A network in user space, without privileges: passt's stream socket (passt(1), `--socket`; QEMU calls
//! it `-netdev stream`). Each frame comes and goes behind its length, 32 bits in network order.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use thiserror::Error;
use vhost_daemon::sys::Buffers;

use super::{FrameSink, FrameSource, Offloads, Port, PortError};
use crate::header::{HeaderLen, MAX_FRAME, MIN_FRAME};
use crate::sys::{Scatter, write_prefixed};

/// Bytes of the length before each frame.
const PREFIX: usize = 4;
/// How much is read with one call: a few of the longest frames.
const READ_AHEAD: usize = 256 << 10;
/// passt ends with its connection: whoever runs it starts it again.
const RETRY: Duration = Duration::from_secs(1);
/// No virtio header: nothing is left undone.
const PLAIN: [u8; HeaderLen::Modern.bytes()] = [0; HeaderLen::Modern.bytes()];

/// passt cannot be reached.
#[derive(Debug, Error)]
#[error("cannot connect to passt's socket {path} (is 'passt --socket {path}' running?)")]
pub struct PasstError {
    /// The socket.
    path: PathBuf,
    /// The system's reason.
    source: io::Error,
}

/// A connection to passt, made again when it breaks.
pub struct Passt {
    shared: Arc<Shared>,
    mtu: Option<u16>,
}

struct Shared {
    path: PathBuf,
    link: Mutex<Link>,
    /// Readable when the connection at hand is; it stays when that one goes.
    readable: OwnedFd,
    header_len: AtomicUsize,
    /// They outlive the queues' threads: a stop may come in the middle of a frame.
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Outgoing>,
}

struct Link {
    stream: Option<Arc<UnixStream>>,
    /// How many there have been: each side notices that its own is over.
    generation: u64,
    retried: Instant,
}

impl Passt {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(path: &Path, mtu: Option<u16>) -> Result<Self, PasstError> {
        let failed = |source| PasstError {
            path: path.to_owned(),
            source,
        };
        let readable = epoll::create(epoll::CreateFlags::CLOEXEC);
        let shared = Shared {
            path: path.to_owned(),
            link: Mutex::new(Link {
                stream: None,
                generation: 0,
                retried: Instant::now(),
            }),
            readable: readable.map_err(|error| failed(error.into()))?,
            header_len: AtomicUsize::new(HeaderLen::Modern.bytes()),
            incoming: Mutex::new(Incoming {
                bytes: vec![0; READ_AHEAD].into_boxed_slice(),
                filled: 0,
                taken: 0,
                generation: 0,
            }),
            outgoing: Mutex::default(),
        };
        shared.connect(&mut shared.link()).map_err(failed)?;
        Ok(Self {
            shared: Arc::new(shared),
            mtu,
        })
    }
}

impl Shared {
    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self, link: &mut Link) -> io::Result<()> {
        link.retried = Instant::now();
        let stream = UnixStream::connect(&self.path)?;
        stream.set_nonblocking(true)?;
        let (data, flags) = (epoll::EventData::new_u64(0), epoll::EventFlags::IN);
        epoll::add(&self.readable, &stream, data, flags | epoll::EventFlags::ET)?;
        link.stream = Some(Arc::new(stream));
        link.generation += 1;
        Ok(())
    }

    /// The connection at hand, made anew if it is time for that.
    fn stream(&self) -> Result<(Arc<UnixStream>, u64), PortError> {
        let mut link = self.link();
        if link.stream.is_none() && link.retried.elapsed() >= RETRY {
            match self.connect(&mut link) {
                Ok(()) => tracing::info!(socket = %self.path.display(), "passt is back"),
                Err(error) => tracing::debug!(%error, "passt cannot be reached"),
            }
        }
        let stream = link.stream.clone().ok_or(PortError::Down)?;
        Ok((stream, link.generation))
    }

    /// Connection `generation` is over.
    fn lost(&self, generation: u64) {
        let mut link = self.link();
        if link.generation == generation && link.stream.take().is_some() {
            link.retried = Instant::now();
            tracing::error!(
                socket = %self.path.display(),
                "passt has gone: frames are dropped until it is back"
            );
        }
    }
}

impl Port for Passt {
    type Source = PasstSource;
    type Sink = PasstSink;

    fn lanes(&self) -> usize {
        1
    }

    fn source(&self, _: usize) -> io::Result<PasstSource> {
        Ok(PasstSource(self.shared.clone()))
    }

    fn sink(&self, _: usize) -> io::Result<PasstSink> {
        Ok(PasstSink(self.shared.clone()))
    }

    /// The protocol has no place for what is undone.
    fn offloads(&self) -> Offloads {
        Offloads::NONE
    }

    fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    fn agree(&self, _: Offloads, header: HeaderLen) -> io::Result<()> {
        self.shared
            .header_len
            .store(header.bytes(), Ordering::Release);
        Ok(())
    }

    fn open_lane(&self, _: usize, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes from passt that were read and not delivered.
struct Incoming {
    bytes: Box<[u8]>,
    filled: usize,
    taken: usize,
    generation: u64,
}

impl Incoming {
    /// The next whole frame that has been read, as its place among the bytes.
    fn next(&mut self, shared: &Shared) -> Result<Option<std::ops::Range<usize>>, PortError> {
        let waiting = self.bytes.get(self.taken..self.filled).unwrap_or_default();
        let Some(prefix) = waiting.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if !(MIN_FRAME..=MAX_FRAME).contains(&len) {
            // Where the next frame begins is not known any more.
            (self.filled, self.taken) = (0, 0);
            shared.lost(self.generation);
            return Err(PortError::Malformed);
        }
        let start = self.taken + PREFIX;
        if start + len > self.filled {
            return Ok(None);
        }
        self.taken = start + len;
        Ok(Some(start..start + len))
    }

    /// Reads more; `false` if nothing has come.
    fn fill(&mut self, shared: &Shared) -> Result<bool, PortError> {
        let (stream, generation) = shared.stream()?;
        if generation != self.generation {
            (self.generation, self.filled, self.taken) = (generation, 0, 0);
        }
        self.bytes.copy_within(self.taken..self.filled, 0);
        (self.filled, self.taken) = (self.filled - self.taken, 0);
        let room = self.bytes.get_mut(self.filled..).unwrap_or_default();
        match rustix::io::read(&*stream, room) {
            Ok(0) => {
                shared.lost(generation);
                Err(PortError::Down)
            }
            Ok(count) => {
                self.filled += count;
                Ok(true)
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(false),
            Err(_) => {
                shared.lost(generation);
                Err(PortError::Down)
            }
        }
    }
}

/// Frames from passt.
pub struct PasstSource(Arc<Shared>);

impl FrameSource for PasstSource {
    fn receive(
        &mut self,
        places: &mut [Scatter<'_>],
        each: &mut dyn FnMut(usize, usize),
    ) -> Result<bool, PortError> {
        let header = self.0.header_len.load(Ordering::Acquire);
        let header = PLAIN.get(..header).unwrap_or(&PLAIN);
        let incoming = self.0.incoming.lock();
        let mut incoming = incoming.unwrap_or_else(PoisonError::into_inner);
        for (index, place) in places.iter_mut().enumerate() {
            let frame = loop {
                if let Some(frame) = incoming.next(&self.0)? {
                    break frame;
                }
                if !incoming.fill(&self.0)? {
                    return Ok(false);
                }
            };
            let frame = incoming.bytes.get(frame).unwrap_or_default();
            each(index, place.fill(&[header, frame]));
        }
        Ok(true)
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.0.readable.as_fd()
    }
}

/// What is under way to passt.
#[derive(Default)]
struct Outgoing {
    /// What the socket did not take of a frame of which it took the beginning.
    rest: Vec<u8>,
    generation: u64,
}

/// Frames to passt.
pub struct PasstSink(Arc<Shared>);

impl FrameSink for PasstSink {
    fn send(&mut self, frames: &[&Buffers], each: &mut dyn FnMut(usize, Result<(), PortError>)) {
        let header = self.0.header_len.load(Ordering::Acquire);
        let mut sent = 0;
        let outgoing = self.0.outgoing.lock();
        let mut outgoing = outgoing.unwrap_or_else(PoisonError::into_inner);
        let ended = outgoing.send_all(&self.0, frames, header, &mut sent);
        for index in 0..frames.len() {
            each(
                index,
                match &ended {
                    _ if index < sent => Ok(()),
                    Err(PortError::Down) => Err(PortError::Down),
                    Err(PortError::Malformed) if index == sent => Err(PortError::Malformed),
                    _ => Err(PortError::Again),
                },
            );
        }
    }
}

impl Outgoing {
    /// Sends with as few calls as possible; `sent` is how many frames have gone, the last of them
    /// perhaps in part.
    fn send_all(
        &mut self,
        shared: &Shared,
        frames: &[&Buffers],
        header: usize,
        sent: &mut usize,
    ) -> Result<(), PortError> {
        let (stream, generation) = shared.stream()?;
        if generation != self.generation {
            (self.generation, self.rest) = (generation, Vec::new());
        }
        if !self.rest.is_empty() {
            let count = self.written(shared, rustix::io::write(&*stream, &self.rest))?;
            self.rest.drain(..count);
            if !self.rest.is_empty() {
                return Err(PortError::Again);
            }
        }
        while let Some(frames) = frames.get(*sent..).filter(|frames| !frames.is_empty()) {
            let (result, batch) = write_prefixed(stream.as_fd(), frames, header);
            if batch == 0 {
                // In more pieces than one call takes: a tap refuses it, too.
                return Err(PortError::Malformed);
            }
            let result = result.map_err(|error| {
                rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)
            });
            let mut count = self.written(shared, result)?;
            for frame in frames.iter().take(batch) {
                if count == 0 {
                    return Err(PortError::Again);
                }
                let whole = PREFIX + frame.len() - header;
                *sent += 1;
                if count < whole {
                    self.keep_rest(frame, header, count);
                    return Err(PortError::Again);
                }
                count -= whole;
            }
        }
        Ok(())
    }

    fn written(
        &self,
        shared: &Shared,
        result: rustix::io::Result<usize>,
    ) -> Result<usize, PortError> {
        match result {
            Ok(count) => Ok(count),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Err(PortError::Again),
            Err(_) => {
                shared.lost(self.generation);
                Err(PortError::Down)
            }
        }
    }

    /// Of a frame behind its length the socket took the first `count` bytes.
    fn keep_rest(&mut self, frame: &Buffers, header: usize, count: usize) {
        let len = frame.len() - header;
        self.rest = u32::try_from(len).unwrap_or(0).to_be_bytes().to_vec();
        self.rest.resize(PREFIX + len, 0);
        frame.read_at(header, self.rest.get_mut(PREFIX..).unwrap_or_default());
        self.rest.drain(..count);
    }
}
