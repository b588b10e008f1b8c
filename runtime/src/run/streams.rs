//! The command's standard streams: between this process's own and connections to the guest.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::thread;

use ringside_pod::{Pod, PodError};
use ringside_protocol::agent::Streams as Names;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::stdio;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const CHUNK: usize = 64 * 1024;

/// What becomes of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// All of it is delivered.
    Ended,
    /// Nobody reads it any more.
    Unread,
}

/// Connections before anything flows.
pub(super) struct Streams {
    stdin: UnixStream,
    stdout: UnixStream,
    /// None on a terminal.
    stderr: Option<UnixStream>,
}

impl Streams {
    /// Connects, and says under which names the agent has the connections.
    pub(super) async fn open(pod: &Pod, terminal: bool) -> Result<(Self, Names), PodError> {
        let mut names = Names::default();
        let mut stderr = None;
        let stdin = connect(pod, &mut names.stdin).await?;
        let stdout = connect(pod, &mut names.stdout).await?;
        if !terminal {
            stderr = Some(connect(pod, &mut names.stderr).await?);
        }
        let streams = Self {
            stdin,
            stdout,
            stderr,
        };
        Ok((streams, names))
    }

    /// How many outputs will end.
    pub(super) fn outputs(&self) -> usize {
        1 + usize::from(self.stderr.is_some())
    }

    /// Starts the threads that move bytes.
    pub(super) fn start(self) -> io::Result<UnboundedReceiver<Moved>> {
        let (sender, moved) = unbounded_channel();
        relay_input(own(stdio::stdin())?, self.stdin);
        relay_output(self.stdout, own(stdio::stdout())?, sender.clone());
        if let Some(stderr) = self.stderr {
            relay_output(stderr, own(stdio::stderr())?, sender);
        }
        Ok(moved)
    }
}

async fn connect(pod: &Pod, name: &mut String) -> Result<UnixStream, PodError> {
    let (given, stream) = pod.open_stream().await?;
    *name = given;
    let blocking = stream.into_std().and_then(|stream| {
        stream.set_nonblocking(false)?;
        Ok(stream)
    });
    blocking.map_err(PodError::Stream)
}

/// An unbuffered duplicate of one of this process's standard streams.
fn own(stream: BorrowedFd<'_>) -> io::Result<File> {
    Ok(rustix::io::fcntl_dupfd_cloexec(stream, 3)?.into())
}

/// Sends standard input to the guest, and then its end.
fn relay_input(from: File, mut to: UnixStream) {
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            match patiently(&from, PollFlags::IN, || (&from).read(&mut buffer)) {
                Ok(0) | Err(_) => break,
                Ok(length) if to.write_all(&buffer[..length]).is_ok() => {}
                Ok(_) => break,
            }
        }
        // A command that has ended reads no end.
        let _ = to.shutdown(Shutdown::Write);
        // The rest of the connection stays: what is under way must arrive.
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

fn relay_output(mut from: UnixStream, to: File, moved: UnboundedSender<Moved>) {
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut unread = false;
        loop {
            let length = match from.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => break,
                Ok(length) => length,
            };
            // When nobody reads any more the bytes are dropped, so that the guest can go on and end.
            if !unread && write_all(&to, &buffer[..length]).is_err() {
                unread = true;
                let _ = moved.send(Moved::Unread);
            }
        }
        let _ = moved.send(Moved::Ended);
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
