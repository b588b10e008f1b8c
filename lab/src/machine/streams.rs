//! The command's streams, between the machine's ports and their ends here.

use std::io::{self, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread;

use lab_protocol::{Notice, Order, port, read_line, write_line};
use rustix::process::Signal;

use super::Error;
use super::running::Event;

const CHUNK: usize = 64 << 10;

/// Where the command's streams come from and go to.
pub struct Streams {
    stdin: Option<Box<dyn Read + Send>>,
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
}

impl Streams {
    /// The command reads nothing; what it writes is written to these as it comes.
    pub fn new(stdout: impl Write + Send + 'static, stderr: impl Write + Send + 'static) -> Self {
        Self {
            stdin: None,
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
        }
    }

    /// The command reads this.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Read + Send + 'static) -> Self {
        self.stdin = Some(Box::new(stdin));
        self
    }

    /// Copies on threads of their own from now on.
    pub(super) fn relay(self, near: Near, events: &Sender<Event>) -> io::Result<Relay> {
        let orders = Orders(Arc::new(near.control.try_clone()?));
        match self.stdin {
            Some(stdin) => feed(stdin, near.stdin.try_clone()?, orders.clone()),
            None => orders.send(&Order::StdinEnd { bytes: 0 }),
        }
        read_notices(near.control, events.clone());
        Ok(Relay {
            stdout: copy(near.stdout, self.stdout, orders.clone(), events.clone()),
            stderr: copy(near.stderr, self.stderr, orders, events.clone()),
            // Closing the port could drop what QEMU still holds.
            _stdin: near.stdin,
        })
    }
}

/// The hypervisor's end of a port.
pub(super) struct Port {
    pub(super) name: &'static str,
    pub(super) socket: OwnedFd,
}

/// Our ends of the ports.
pub(super) struct Near {
    control: UnixStream,
    stdin: UnixStream,
    stdout: UnixStream,
    stderr: UnixStream,
}

/// Connected pairs for all ports.
pub(super) fn ports() -> Result<(Near, Vec<Port>), Error> {
    let mut far = Vec::new();
    let mut pair = |name| -> Result<UnixStream, Error> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("make a port's socket pair"))?;
        far.push(Port {
            name,
            socket: theirs.into(),
        });
        Ok(ours)
    };
    let near = Near {
        control: pair(port::CONTROL)?,
        stdin: pair(port::STDIN)?,
        stdout: pair(port::STDOUT)?,
        stderr: pair(port::STDERR)?,
    };
    Ok((near, far))
}

/// The streams while the machine runs.
#[derive(Debug)]
pub(super) struct Relay {
    stdout: Arc<Progress>,
    stderr: Arc<Progress>,
    _stdin: UnixStream,
}

impl Relay {
    /// The command wrote this much in all.
    pub(super) fn expect(&self, stdout: u64, stderr: u64) {
        self.stdout.expected.store(stdout, Ordering::SeqCst);
        self.stderr.expected.store(stderr, Ordering::SeqCst);
    }

    /// Whether all that the command wrote was delivered.
    pub(super) fn is_complete(&self) -> bool {
        self.stdout.is_complete() && self.stderr.is_complete()
    }
}

#[derive(Debug)]
struct Progress {
    delivered: AtomicU64,
    expected: AtomicU64,
}

impl Progress {
    fn is_complete(&self) -> bool {
        self.delivered.load(Ordering::SeqCst) >= self.expected.load(Ordering::SeqCst)
    }
}

/// Orders to the machine's first process.
#[derive(Clone)]
struct Orders(Arc<UnixStream>);

impl Orders {
    /// A machine that is gone obeys nothing, and whoever watches QEMU says so.
    fn send(&self, order: &Order) {
        let _ = write_line(&mut &*self.0, order);
    }
}

fn copy(
    mut from: UnixStream,
    mut to: Box<dyn Write + Send>,
    orders: Orders,
    events: Sender<Event>,
) -> Arc<Progress> {
    let progress = Arc::new(Progress {
        delivered: AtomicU64::new(0),
        expected: AtomicU64::new(u64::MAX),
    });
    let shared = Arc::clone(&progress);
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut broken = false;
        while let Ok(length @ 1..) = read(&mut from, &mut buffer) {
            let written = to.write_all(&buffer[..length]).and_then(|()| to.flush());
            // When nobody reads any more the rest is dropped, so that the command can end.
            if written.is_err() && !broken {
                broken = true;
                let number = Signal::PIPE.as_raw();
                orders.send(&Order::Signal { number });
            }
            shared.delivered.fetch_add(length as u64, Ordering::SeqCst);
            if shared.is_complete() && events.send(Event::Delivered).is_err() {
                return;
            }
        }
    });
    progress
}

fn feed(mut from: Box<dyn Read + Send>, mut to: UnixStream, orders: Orders) {
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut bytes = 0;
        while let Ok(length @ 1..) = read(&mut from, &mut buffer) {
            if to.write_all(&buffer[..length]).is_err() {
                return;
            }
            bytes += length as u64;
        }
        orders.send(&Order::StdinEnd { bytes });
    });
}

fn read(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn read_notices(control: UnixStream, events: Sender<Event>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(control);
        loop {
            let event = match read_line::<Notice>(&mut reader) {
                Ok(Some(notice)) => Event::Notice(notice),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => Event::Garbled(error),
                // QEMU's end is seen by who watches the process.
                Ok(None) | Err(_) => return,
            };
            let last = matches!(event, Event::Garbled(_));
            if events.send(event).is_err() || last {
                return;
            }
        }
    });
}
