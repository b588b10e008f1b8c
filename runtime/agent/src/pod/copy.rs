//! One direction of one standard stream: bytes go on as the other side takes them.
//!
//! Nothing is read before all that was read is written, so a slow reader holds up the writer and the
//! agent holds one buffer's worth at most.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, read, write};
use rustix::net::{Shutdown, shutdown};

/// Bytes read at a time.
pub(super) const CHUNK: usize = 64 * 1024;

/// Bytes moved before others have their turn.
const TURN: usize = 16 * CHUNK;

/// What a terminal takes for "no more input" (VEOF, termios(3)).
const END_OF_INPUT: u8 = 4;

/// What has ended when the source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// From the host into a pipe, which closes.
    Input,
    /// From the host into a terminal, which is told with a character.
    TerminalInput,
    /// To the host, whose connection is closed in this direction only.
    Output,
}

/// What a copy waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Its source: everything read was written.
    Source,
    /// Its sink, with bytes in hand.
    Sink,
    /// Nothing: others are to have their turn.
    Turn,
    /// Nothing ever again.
    Done,
}

/// Both ends, neither of which blocks, and what is between them.
#[derive(Debug)]
pub(super) struct Copy {
    /// There until the copy is done.
    pub(super) source: Option<OwnedFd>,
    pub(super) sink: OwnedFd,
    kind: Kind,
    pending: Vec<u8>,
    written: usize,
    /// Bytes written to the sink in all.
    pub(super) total: u64,
    /// Whether an empty source counts as an ended one.
    ending: bool,
    done: bool,
}

impl Copy {
    pub(super) fn new(source: OwnedFd, sink: OwnedFd, kind: Kind) -> io::Result<Self> {
        for end in [&source, &sink] {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        Ok(Self {
            source: Some(source),
            sink,
            kind,
            pending: Vec::new(),
            written: 0,
            total: 0,
            ending: false,
            done: false,
        })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// From now on the source ends where nothing more is to be read at once.
    pub(super) fn end_soon(&mut self) {
        self.ending = true;
    }

    /// Bytes that wait in the source, as far as it can say, and in hand.
    pub(super) fn backlog(&self) -> u64 {
        let in_hand = self.pending.len().saturating_sub(self.written);
        let waiting = self.source.as_ref().map(rustix::io::ioctl_fionread);
        let waiting = waiting.and_then(Result::ok).unwrap_or_default();
        waiting.saturating_add(in_hand as u64)
    }

    /// Moves what can be moved. `buffer` is lent: every copy reads into the same.
    pub(super) fn advance(&mut self, buffer: &mut [u8]) -> Wait {
        if self.done {
            return Wait::Done;
        }
        let before = self.total;
        while self.total - before < TURN as u64 {
            match self.step(buffer) {
                Ok(()) => {}
                Err(wait) => return wait,
            }
        }
        Wait::Turn
    }

    fn step(&mut self, buffer: &mut [u8]) -> Result<(), Wait> {
        if !self.pending.is_empty() {
            return self.write_pending();
        }
        let Some(source) = &self.source else {
            return Err(Wait::Done);
        };
        let length = match read(source, &mut *buffer) {
            Ok(0) => return Err(self.end()),
            Ok(length) => length,
            Err(Errno::INTR) => return Ok(()),
            Err(Errno::AGAIN) if self.ending => return Err(self.end()),
            Err(Errno::AGAIN) => return Err(Wait::Source),
            // A terminal whose last user is gone answers EIO; a connection may be reset.
            Err(_) => return Err(self.end()),
        };
        let written = self.write(&buffer[..length])?;
        if written < length {
            self.pending = buffer[written..length].to_vec();
            self.written = 0;
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), Wait> {
        let pending = std::mem::take(&mut self.pending);
        let written = match self.write(&pending[self.written..]) {
            Ok(written) => written,
            Err(wait) => {
                self.pending = pending;
                return Err(wait);
            }
        };
        self.written += written;
        if self.written < pending.len() {
            self.pending = pending;
            return if written == 0 {
                Err(Wait::Sink)
            } else {
                Ok(())
            };
        }
        self.written = 0;
        Ok(())
    }

    /// Writes what the sink takes; 0 where it takes nothing now.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Wait> {
        match write(&self.sink, bytes) {
            Ok(written) => {
                self.total += written as u64;
                Ok(written)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(_) => {
                self.done = true;
                Err(Wait::Done)
            }
        }
    }

    /// After the end: whoever still writes into the source is told that nobody reads, and the sink stays.
    pub(super) fn rest(&mut self) {
        self.pending = Vec::new();
        self.source = None;
    }

    fn end(&mut self) -> Wait {
        match self.kind {
            Kind::Input => {}
            Kind::TerminalInput => {
                // A terminal that is full has a reader who does not read: no end would reach it either.
                let _ = write(&self.sink, &[END_OF_INPUT]);
            }
            Kind::Output => {
                let _ = shutdown(&self.sink, Shutdown::Write);
            }
        }
        self.done = true;
        Wait::Done
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;

    use super::*;

    fn output() -> (io::PipeWriter, Copy, UnixStream) {
        let (source, writer) = io::pipe().unwrap();
        let (sink, host) = UnixStream::pair().unwrap();
        let copy = Copy::new(source.into(), sink.into(), Kind::Output).unwrap();
        (writer, copy, host)
    }

    #[test]
    fn output_ends_with_a_half_close() {
        let (mut writer, mut copy, mut host) = output();
        writer.write_all(b"all of it").unwrap();
        let mut buffer = vec![0; CHUNK];
        assert_eq!(copy.advance(&mut buffer), Wait::Source);
        drop(writer);
        assert_eq!(copy.advance(&mut buffer), Wait::Done);
        let mut text = String::new();
        host.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), copy.total), ("all of it", 9));
        assert!(host.write_all(b"the other direction is open").is_ok());
    }

    #[test]
    fn a_host_that_does_not_read_holds_the_writer_up() {
        let (writer, mut copy, mut host) = output();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let (mut buffer, mut sent) = (vec![0; CHUNK], Vec::new());
        let piece: Vec<u8> = (0..251).collect();
        // Until neither takes more.
        for _ in 0..100_000 {
            match write(&writer, &piece) {
                Ok(length) => sent.extend_from_slice(&piece[..length]),
                Err(_) if copy.advance(&mut buffer) == Wait::Sink => {
                    if write(&writer, &piece).is_err() {
                        break;
                    }
                    sent.extend_from_slice(&piece);
                }
                Err(_) => {}
            }
        }
        assert!(copy.backlog() > 0);
        drop(writer);
        let (mut received, mut piece) = (Vec::new(), vec![0; 1000]);
        loop {
            copy.advance(&mut buffer);
            match host.read(&mut piece).unwrap() {
                0 => break,
                length => received.extend_from_slice(&piece[..length]),
            }
        }
        assert_eq!(received.len(), sent.len());
        assert!(received == sent);
    }

    #[test]
    fn input_ends_when_told_and_what_was_sent_is_read_first() {
        let (mut host, source) = UnixStream::pair().unwrap();
        let (mut reader, sink) = io::pipe().unwrap();
        let mut copy = Copy::new(source.into(), sink.into(), Kind::Input).unwrap();
        host.write_all(b"line\n").unwrap();
        copy.end_soon();
        assert_eq!(copy.advance(&mut vec![0; CHUNK]), Wait::Done);
        drop(copy);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "line\n");
    }

    #[test]
    fn nobody_left_to_read_input_ends_it() {
        let (mut host, source) = UnixStream::pair().unwrap();
        let (reader, sink) = io::pipe().unwrap();
        let mut copy = Copy::new(source.into(), sink.into(), Kind::Input).unwrap();
        drop(reader);
        host.write_all(b"x").unwrap();
        assert_eq!(copy.advance(&mut vec![0; CHUNK]), Wait::Done);
    }

    proptest! {
        #[test]
        fn bytes_arrive_unchanged_whatever_the_sizes(pieces in prop::collection::vec(1..5000_usize, 1..20), read in 1..4000_usize) {
            let (mut writer, mut copy, mut host) = output();
            host.set_nonblocking(true).unwrap();
            let (mut buffer, mut sent, mut received) = (vec![0; 1024], Vec::new(), Vec::new());
            let mut piece = vec![0; read];
            for length in pieces {
                let bytes: Vec<u8> = (0..length).map(|at| (sent.len() + at).to_le_bytes()[0]).collect();
                writer.write_all(&bytes).unwrap();
                sent.extend(bytes);
                copy.advance(&mut buffer);
                if let Ok(length) = host.read(&mut piece) {
                    received.extend_from_slice(&piece[..length]);
                }
            }
            drop(writer);
            while copy.advance(&mut buffer) != Wait::Done {
                if let Ok(length) = host.read(&mut piece) {
                    received.extend_from_slice(&piece[..length]);
                }
            }
            host.set_nonblocking(false).unwrap();
            host.read_to_end(&mut received).unwrap();
            prop_assert_eq!(received, sent);
        }
    }
}
