//! How the host's programs reach a guest's ports and a guest reaches theirs, by unix sockets.
//!
//! A program connects to the socket, sends `CONNECT <port>\n`, reads `OK <host port>\n`, and is
//! joined to the guest's port. A guest that connects to the host's port P is joined to the socket of
//! that name with `_P` behind it. (The convention of Firecracker and Cloud Hypervisor.)

use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, recv, socket_with,
};
use thiserror::Error;

/// Longest line: `CONNECT 4294967295\n`, and some spaces.
const LONGEST: usize = 32;

/// A program's first words are not the convention's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the client's first line is not 'CONNECT <port>'")]
pub struct BadLine;

/// The guest's port that `bytes` ask for and the length of the line, once it is whole.
///
/// # Errors
/// When it cannot become such a line.
pub fn parse_line(bytes: &[u8]) -> Result<Option<(u32, usize)>, BadLine> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < LONGEST {
            Ok(None)
        } else {
            Err(BadLine)
        };
    };
    let line = bytes.get(..end).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| BadLine)?;
    let mut words = line.split_ascii_whitespace();
    let is_connect = words
        .next()
        .is_some_and(|word| word.eq_ignore_ascii_case("connect"));
    let port = words.next().and_then(|word| word.parse().ok());
    match port {
        Some(port) if is_connect && words.next().is_none() => Ok(Some((port, end + 1))),
        _ => Err(BadLine),
    }
}

/// Where a client's greeting stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Greeting {
    /// It asks for this port of the guest's; its line is read and nothing behind it.
    Port(u32),
    /// More is to come.
    Incomplete,
    /// It has gone, or talks of something else.
    Over(Option<BadLine>),
}

/// Reads a client's line if it is whole.
pub fn greet(client: &UnixStream) -> Greeting {
    let mut bytes = [0; LONGEST];
    let peeked = recv(client, &mut bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT);
    let count = match peeked {
        Ok((0, _)) => return Greeting::Over(None),
        Ok((count, _)) => count,
        Err(Errno::AGAIN | Errno::INTR) => return Greeting::Incomplete,
        Err(_) => return Greeting::Over(None),
    };
    match parse_line(bytes.get(..count).unwrap_or_default()) {
        Err(bad) => Greeting::Over(Some(bad)),
        Ok(None) => Greeting::Incomplete,
        Ok(Some((port, len))) => {
            let line = bytes.get_mut(..len).unwrap_or_default();
            match recv(client, line, RecvFlags::DONTWAIT) {
                Ok((read, _)) if read == len => Greeting::Port(port),
                _ => Greeting::Over(None),
            }
        }
    }
}

/// The socket of the host's port `port`.
pub fn path_of(base: &Path, port: u32) -> PathBuf {
    let mut path = OsString::from(base);
    path.push(format!("_{port}"));
    path.into()
}

/// Connects to `path` without waiting.
///
/// # Errors
/// connect(2)'s; `EAGAIN` when as many wait there as may.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_taken_when_it_is_whole() {
        assert_eq!(parse_line(b""), Ok(None));
        assert_eq!(parse_line(b"CONNECT 10"), Ok(None));
        assert_eq!(parse_line(b"CONNECT 1024\n"), Ok(Some((1024, 13))));
        assert_eq!(parse_line(b"connect 7\r\nrest"), Ok(Some((7, 11))));
        assert_eq!(
            parse_line(b"CONNECT 4294967295\n"),
            Ok(Some((u32::MAX, 19)))
        );
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "\n",
            "CONNECT\n",
            "CONNECT x\n",
            "CONNECT 1 2\n",
            "GET / HTTP/1.1\n",
        ] {
            assert_eq!(parse_line(line.as_bytes()), Err(BadLine), "{line:?}");
        }
        assert_eq!(parse_line(b"CONNECT 4294967296\n"), Err(BadLine));
        assert_eq!(parse_line(&[b'x'; LONGEST]), Err(BadLine));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(Some((_, len))) = parse_line(&bytes) {
                prop_assert_eq!(bytes[len - 1], b'\n');
            }
        }
    }

    #[test]
    fn what_follows_the_line_stays_in_the_socket() {
        use std::io::{Read, Write};
        let (mut client, server) = UnixStream::pair().unwrap();
        assert_eq!(greet(&server), Greeting::Incomplete);
        client.write_all(b"CONN").unwrap();
        assert_eq!(greet(&server), Greeting::Incomplete);
        client.write_all(b"ECT 5\nhello").unwrap();
        assert_eq!(greet(&server), Greeting::Port(5));
        let mut rest = [0; 5];
        (&server).read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"hello");
        drop(client);
        assert_eq!(greet(&server), Greeting::Over(None));
    }
}
