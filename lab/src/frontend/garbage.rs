//! Wrong bytes on a daemon's socket, and what it does about them.
//!
//! Each function makes a connection of its own. The message layout is that of the vhost-user
//! specification: request, flags (version 1 in the low two bits), size, payload.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::connect::connect_stream;
use super::{Error, Result};

const VERSION: u32 = 1;
const NEED_REPLY: u32 = 8;

/// Requests by number (vhost-user specification, "Front-end message types").
pub mod request {
    /// `VHOST_USER_GET_FEATURES`, which every daemon answers.
    pub const GET_FEATURES: u32 = 1;
    /// `VHOST_USER_SET_OWNER`.
    pub const SET_OWNER: u32 = 3;
    /// `VHOST_USER_SET_MEM_TABLE`, which carries a descriptor per region.
    pub const SET_MEM_TABLE: u32 = 5;
    /// `VHOST_USER_SET_VRING_NUM`.
    pub const SET_VRING_NUM: u32 = 8;
    /// `VHOST_USER_SET_VRING_KICK`, which carries a descriptor.
    pub const SET_VRING_KICK: u32 = 12;
    /// `VHOST_USER_SET_VRING_CALL`, which carries a descriptor.
    pub const SET_VRING_CALL: u32 = 13;
}

/// What the daemon did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// It closed the connection.
    Closed,
    /// It sent these bytes and kept the connection.
    Answered(Vec<u8>),
    /// It kept the connection and said nothing in the time given.
    Silent,
}

/// A message with any header.
#[must_use]
pub fn message(request: u32, flags: u32, size: u32, payload: &[u8]) -> Vec<u8> {
    let header = [request, flags, size].map(u32::to_le_bytes).concat();
    [&header[..], payload].concat()
}

/// A well-formed GET_FEATURES; a daemon that lives answers it.
///
/// # Errors
/// When nobody accepts the connection.
pub fn alive(socket: &Path, timeout: Duration) -> Result<Reaction> {
    send(
        socket,
        &message(request::GET_FEATURES, VERSION, 0, &[]),
        timeout,
    )
}

/// `len` bytes that look like nothing, the same for the same `seed`.
///
/// # Errors
/// When nobody accepts the connection.
pub fn random(socket: &Path, seed: u64, len: usize, timeout: Duration) -> Result<Reaction> {
    send(socket, &crate::pattern(seed, len), timeout)
}

/// A message of a protocol version that does not exist.
///
/// # Errors
/// When nobody accepts the connection.
pub fn wrong_version(socket: &Path, timeout: Duration) -> Result<Reaction> {
    send(socket, &message(request::GET_FEATURES, 2, 0, &[]), timeout)
}

/// A request number that does not exist.
///
/// # Errors
/// When nobody accepts the connection.
pub fn unknown_request(socket: &Path, timeout: Duration) -> Result<Reaction> {
    send(
        socket,
        &message(0xffff, VERSION | NEED_REPLY, 0, &[]),
        timeout,
    )
}

/// A header that announces nearly 4 GiB of payload, and a little of it.
///
/// # Errors
/// When nobody accepts the connection.
pub fn huge_size(socket: &Path, timeout: Duration) -> Result<Reaction> {
    let bytes = message(request::SET_MEM_TABLE, VERSION, 0xffff_fff0, &[0; 64]);
    send(socket, &bytes, timeout)
}

/// SET_MEM_TABLE with one region and SET_VRING_KICK, neither with a descriptor.
///
/// # Errors
/// When nobody accepts the connection.
pub fn missing_fds(socket: &Path, timeout: Duration) -> Result<Reaction> {
    let mut table = [1_u32, 0].map(u32::to_le_bytes).concat();
    table.extend([0_u64, 4096, 0x1000, 0].map(u64::to_le_bytes).concat());
    let kick = 0_u64.to_le_bytes();
    let bytes = [
        message(request::SET_OWNER, VERSION, 0, &[]),
        message(request::SET_MEM_TABLE, VERSION, 40, &table),
        message(request::SET_VRING_KICK, VERSION, 8, &kick),
    ]
    .concat();
    send(socket, &bytes, timeout)
}

/// More descriptors than the request takes.
///
/// # Errors
/// When nobody accepts the connection.
pub fn surplus_fds(socket: &Path, count: usize, timeout: Duration) -> Result<Reaction> {
    let stream = connect_stream(socket, timeout)?;
    let bytes = message(request::SET_OWNER, VERSION, 0, &[]);
    let fds: Vec<BorrowedFd<'_>> =
        std::iter::repeat_n(std::os::fd::AsFd::as_fd(&stream), count.min(MAX_FDS)).collect();
    send_with_fds(&stream, &bytes, &fds).map_err(Error::os(
        "cannot send file descriptors over the vhost-user socket",
    ))?;
    react(&stream, timeout)
}

/// Half a header, then the connection is closed. There is nobody left to react to.
///
/// # Errors
/// When nobody accepts the connection.
pub fn partial_then_close(socket: &Path, timeout: Duration) -> Result<()> {
    let mut stream = connect_stream(socket, timeout)?;
    let bytes = message(request::SET_VRING_NUM, VERSION, 8, &[0; 8]);
    stream
        .write_all(&bytes[..7])
        .map_err(Error::os("cannot write to the vhost-user socket"))
}

/// A header without the payload that it announces, then silence.
///
/// # Errors
/// When nobody accepts the connection.
pub fn partial_then_silence(socket: &Path, timeout: Duration) -> Result<Reaction> {
    send(
        socket,
        &message(request::SET_VRING_NUM, VERSION, 8, &[]),
        timeout,
    )
}

/// Any bytes on a new connection.
///
/// # Errors
/// When nobody accepts the connection.
pub fn send(socket: &Path, bytes: &[u8], timeout: Duration) -> Result<Reaction> {
    let mut stream = connect_stream(socket, timeout)?;
    match stream.write_all(bytes) {
        Ok(()) => react(&stream, timeout),
        Err(error) if hung_up(&error) => Ok(Reaction::Closed),
        Err(source) => Err(Error::Os {
            what: "cannot write to the vhost-user socket",
            source,
        }),
    }
}

/// The kernel's limit on descriptors in a message (`SCM_MAX_FD`).
const MAX_FDS: usize = 253;

/// Bytes and descriptors on a stream, for instance that of a
/// [`FrontEnd`](super::FrontEnd::stream).
///
/// # Errors
/// What `sendmsg(2)` reports.
pub fn send_with_fds(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other(
            "more file descriptors than one message takes",
        ));
    }
    sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// What comes on `stream` within `timeout`, up to the end of the first message.
///
/// # Errors
/// When the socket's time limit cannot be set, or reading fails for a reason of our own.
pub fn react(mut stream: &UnixStream, timeout: Duration) -> Result<Reaction> {
    let limit = stream.set_read_timeout(Some(timeout));
    limit.map_err(Error::os("cannot set the socket's time limit"))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !is_message(&answer) {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(Reaction::Closed),
            Ok(len) => answer.extend(&buffer[..len]),
            Err(error) if hung_up(&error) => return Ok(Reaction::Closed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(source) => {
                return Err(Error::Os {
                    what: "cannot read from the vhost-user socket",
                    source,
                });
            }
        }
    }
    Ok(if answer.is_empty() {
        Reaction::Silent
    } else {
        Reaction::Answered(answer)
    })
}

/// Whether the payload that the header announces is there. Daemons write them one by one.
fn is_message(bytes: &[u8]) -> bool {
    let size = bytes
        .get(8..12)
        .and_then(|size| size.try_into().ok())
        .map(u32::from_le_bytes);
    size.is_some_and(|size| bytes.len() - 12 >= usize::try_from(size).unwrap_or(usize::MAX))
}

fn hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
