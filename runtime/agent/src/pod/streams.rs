//! Connections that announced a stream and wait for a process.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::Instant;

use ringside_protocol::stream::{ACCEPTED, LONGEST_LINE, MOST_UNCLAIMED, UNCLAIMED_FOR, parse};
use rustix::io::Errno;

/// Connections by the name they announced.
#[derive(Debug, Default)]
pub(super) struct Streams {
    waiting: HashMap<String, (OwnedFd, Instant)>,
}

/// Why an announced stream is not kept.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("a stream of this name waits already")]
    Taken,
    #[error("{MOST_UNCLAIMED} streams wait to be named: no more are taken")]
    Full,
}

impl Streams {
    /// Whether a connection of this name would be kept.
    pub(super) fn may_keep(&mut self, name: &str, now: Instant) -> Result<(), Refusal> {
        self.expire(now);
        if self.waiting.contains_key(name) {
            return Err(Refusal::Taken);
        }
        if self.waiting.len() >= MOST_UNCLAIMED {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    /// Keeps a connection until somebody names it, at most [`UNCLAIMED_FOR`]. Asks nothing.
    pub(super) fn keep(&mut self, name: &str, connection: OwnedFd, now: Instant) {
        self.waiting.insert(name.to_owned(), (connection, now));
    }

    /// Hands a connection over.
    pub(super) fn claim(&mut self, name: &str) -> Option<OwnedFd> {
        self.waiting.remove(name).map(|(connection, _)| connection)
    }

    /// Closes what nobody named in time. Says when to look again.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        self.waiting
            .retain(|_, (_, since)| now.duration_since(*since) < UNCLAIMED_FOR);
        let oldest = self.waiting.values().map(|(_, since)| *since).min();
        oldest.map(|since| since + UNCLAIMED_FOR)
    }
}

/// A connection whose announcement is not complete.
#[derive(Debug)]
pub(super) struct Announcement {
    pub(super) connection: OwnedFd,
    pub(super) since: Instant,
    line: Vec<u8>,
}

/// How far an announcement is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Name(String),
    /// Not an announcement, or the connection ended.
    Broken(&'static str),
}

impl Announcement {
    pub(super) fn new(connection: OwnedFd, since: Instant) -> Self {
        Self {
            connection,
            since,
            line: Vec::new(),
        }
    }

    /// Reads what is there, byte by byte: what follows the line belongs to the stream.
    pub(super) fn read(&mut self) -> Progress {
        loop {
            let mut byte = [0];
            match rustix::io::read(&self.connection, &mut byte) {
                Ok(0) => return Progress::Broken("the connection ended within its first line"),
                Ok(_) if byte == *b"\n" => break,
                Ok(_) if self.line.len() >= LONGEST_LINE => {
                    return Progress::Broken("the first line is too long");
                }
                Ok(_) => self.line.extend(byte),
                Err(Errno::AGAIN) => return Progress::More,
                Err(Errno::INTR) => {}
                Err(_) => return Progress::Broken("the connection broke"),
            }
        }
        match parse(&self.line) {
            Some(name) => Progress::Name(name.to_owned()),
            None => Progress::Broken(
                "the first line must be: stream NAME, NAME being 1 to 128 of A-Z a-z 0-9 . _ / -",
            ),
        }
    }
}

/// Tells the host how it went. A host that does not take a line at once does not want to know.
pub(super) fn answer(connection: &OwnedFd, outcome: Result<(), &str>) {
    let line = match outcome {
        Ok(()) => ACCEPTED.to_owned(),
        Err(why) => format!("{why}\n"),
    };
    let _ = rustix::io::write(connection, line.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    fn connection() -> (UnixStream, OwnedFd) {
        let (host, guest) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        (host, guest.into())
    }

    #[test]
    fn a_stream_is_claimed_once() {
        let (mut streams, now) = (Streams::default(), Instant::now());
        streams.keep("a", connection().1, now);
        assert_eq!(streams.may_keep("a", now), Err(Refusal::Taken));
        assert!(streams.claim("a").is_some());
        assert!(streams.claim("a").is_none());
    }

    #[test]
    fn there_is_an_end_to_waiting() {
        let (mut streams, now) = (Streams::default(), Instant::now());
        let (mut host, guest) = connection();
        streams.keep("old", guest, now);
        assert_eq!(streams.expire(now), Some(now + UNCLAIMED_FOR));
        assert_eq!(streams.expire(now + UNCLAIMED_FOR), None);
        assert!(streams.claim("old").is_none());
        assert_eq!(host.read(&mut [0]).unwrap(), 0, "it is closed");
    }

    #[test]
    fn there_is_a_limit_to_their_number() {
        let (mut streams, now) = (Streams::default(), Instant::now());
        let (_host, guest) = connection();
        for number in 0..MOST_UNCLAIMED {
            let another = guest.try_clone().unwrap();
            assert_eq!(streams.may_keep(&number.to_string(), now), Ok(()));
            streams.keep(&number.to_string(), another, now);
        }
        assert_eq!(streams.may_keep("more", now), Err(Refusal::Full));
        let later = now + UNCLAIMED_FOR + Duration::from_secs(1);
        assert_eq!(streams.may_keep("more", later), Ok(()));
    }

    #[test]
    fn what_follows_the_line_is_the_streams() {
        let (mut host, guest) = connection();
        let mut announcement = Announcement::new(guest, Instant::now());
        host.write_all(b"stream pod/").unwrap();
        assert_eq!(announcement.read(), Progress::More);
        host.write_all(b"x\nfirst").unwrap();
        assert_eq!(announcement.read(), Progress::Name("pod/x".to_owned()));
        let mut rest = [0; 5];
        UnixStream::from(announcement.connection)
            .read_exact(&mut rest)
            .unwrap();
        assert_eq!(&rest, b"first");
    }

    #[test]
    fn other_first_lines_are_refused() {
        let long = [b'x'; 1000];
        for line in [&b"hello\n"[..], b"stream a b\n", b"\n", &long] {
            let (mut host, guest) = connection();
            host.write_all(line).unwrap();
            let progress = Announcement::new(guest, Instant::now()).read();
            assert!(matches!(progress, Progress::Broken(_)), "{progress:?}");
        }
        let (host, guest) = connection();
        drop(host);
        let progress = Announcement::new(guest, Instant::now()).read();
        assert!(matches!(progress, Progress::Broken(_)), "{progress:?}");
    }
}
