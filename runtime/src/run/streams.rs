//! The host's ends of the guest's ports.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use ringside_protocol::{Notice, Order, port, read_line, write_line};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::stdio;

use super::event::Event;
use crate::hypervisor::SerialPort;

const CHUNK: usize = 64 * 1024;

/// A guest that takes no orders must not keep the run from ending.
const LISTENS_WITHIN: Duration = Duration::from_secs(1);

/// The ports before anything flows.
pub(super) struct Streams {
    stdin: UnixStream,
    stdout: UnixStream,
    stderr: UnixStream,
    control: UnixStream,
}

/// The ports while the machine runs.
pub(super) struct Running {
    orders: Orders,
    stdout: Arc<Progress>,
    stderr: Arc<Progress>,
}

/// The way to the guest's agent, shared by those who have something to say.
#[derive(Clone)]
struct Orders(Arc<Mutex<UnixStream>>);

impl Orders {
    /// A guest that has ended hears nothing, and its end is an event of its own.
    fn send(&self, order: Order) {
        let mut control = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = write_line(&mut *control, &order) {
            tracing::debug!(?order, %error, "the guest does not listen");
        }
    }
}

impl Streams {
    /// Makes a socket pair for each port: ours, and the hypervisor's.
    pub(super) fn pairs() -> Result<(Self, Vec<SerialPort>)> {
        let mut ports = Vec::new();
        let mut pair = |name| -> Result<UnixStream> {
            let (ours, theirs) = UnixStream::pair().context("cannot make a socket pair")?;
            ports.push(SerialPort {
                name,
                socket: OwnedFd::from(theirs),
            });
            Ok(ours)
        };
        let streams = Self {
            stdin: pair(port::STDIN)?,
            stdout: pair(port::STDOUT)?,
            stderr: pair(port::STDERR)?,
            control: pair(port::CONTROL)?,
        };
        Ok((streams, ports))
    }

    /// Starts the threads that move bytes.
    pub(super) fn start(self, events: Sender<Event>) -> Result<Running> {
        let duplicate = "cannot duplicate a stream";
        let control = self.control.try_clone().context(duplicate)?;
        control
            .set_write_timeout(Some(LISTENS_WITHIN))
            .context("cannot limit the time of an order")?;
        let orders = Orders(Arc::new(Mutex::new(control)));
        let input = own(stdio::stdin()).context(duplicate)?;
        relay_input(input, self.stdin, orders.clone());
        let output = own(stdio::stdout()).context(duplicate)?;
        let stdout = relay_output(self.stdout, output, events.clone());
        let errors = own(stdio::stderr()).context(duplicate)?;
        let stderr = relay_output(self.stderr, errors, events.clone());
        read_notices(self.control, events);
        Ok(Running {
            orders,
            stdout,
            stderr,
        })
    }
}

impl Running {
    pub(super) fn order(&self, order: Order) {
        self.orders.send(order);
    }

    /// From now on `Event::OutputComplete` says when a stream has delivered all its bytes.
    pub(super) fn expect(&self, stdout: u64, stderr: u64) {
        self.stdout.expected.store(stdout, Ordering::SeqCst);
        self.stderr.expected.store(stderr, Ordering::SeqCst);
    }

    /// Whether everything expected has been delivered.
    pub(super) fn are_complete(&self) -> bool {
        self.stdout.is_complete() && self.stderr.is_complete()
    }
}

/// How far an output stream is.
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

/// An unbuffered duplicate of one of this process's standard streams.
fn own(stream: BorrowedFd<'_>) -> io::Result<File> {
    Ok(rustix::io::fcntl_dupfd_cloexec(stream, 3)?.into())
}

/// Sends standard input to the guest, then how long it was.
fn relay_input(from: File, mut to: UnixStream, orders: Orders) {
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut bytes = 0;
        loop {
            match patiently(&from, PollFlags::IN, || (&from).read(&mut buffer)) {
                Ok(0) | Err(_) => break,
                Ok(length) if to.write_all(&buffer[..length]).is_ok() => bytes += length as u64,
                Ok(_) => break,
            }
        }
        orders.send(Order::StdinEnd { bytes });
        // The port stays open: closing it could drop what the hypervisor still holds.
        std::mem::forget(to);
    });
}

fn write_all(mut to: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match patiently(to, PollFlags::OUT, || to.write(bytes))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

/// Tries again until `attempt` neither was interrupted nor would have to wait: whoever started us
/// may have made our standard streams non-blocking, and they are not ours alone to change.
fn patiently(
    stream: &File,
    until: PollFlags,
    mut attempt: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // A failed wait ends in another attempt.
                let _ = poll(&mut [PollFd::new(stream, until)], None);
            }
            other => return other,
        }
    }
}

fn relay_output(mut from: UnixStream, to: File, events: Sender<Event>) -> Arc<Progress> {
    let progress = Arc::new(Progress {
        delivered: AtomicU64::new(0),
        expected: AtomicU64::new(u64::MAX),
    });
    let shared = Arc::clone(&progress);
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut broken = false;
        loop {
            let length = match from.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            };
            // When nobody reads any more the bytes are dropped, so that the guest can go on and end.
            if !broken && write_all(&to, &buffer[..length]).is_err() {
                broken = true;
                let _ = events.send(Event::OutputBroken);
            }
            shared.delivered.fetch_add(length as u64, Ordering::SeqCst);
            if shared.is_complete() {
                let _ = events.send(Event::OutputComplete);
            }
        }
    });
    progress
}

fn read_notices(control: UnixStream, events: Sender<Event>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(control);
        loop {
            let event = match read_line::<Notice>(&mut reader) {
                Ok(Some(notice)) => Event::Notice(notice),
                // The hypervisor's end is reported by who watches the process.
                Ok(None) => return,
                Err(error) => {
                    let _ = reader.get_ref().shutdown(Shutdown::Read);
                    Event::BadNotice(error)
                }
            };
            if events.send(event).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn a_pipe_that_does_not_block_loses_nothing() {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let to = own(to.as_fd()).unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let writer = thread::spawn(move || write_all(&to, &sent));
        let from = File::from(from);
        let (mut received, mut buffer) = (Vec::new(), vec![0; CHUNK]);
        while received.len() < expected.len() {
            let length = patiently(&from, PollFlags::IN, || (&from).read(&mut buffer)).unwrap();
            received.extend_from_slice(&buffer[..length]);
        }
        writer.join().unwrap().unwrap();
        assert!(received == expected);
    }
}
