//! A front end that is already connected (`--fd` with a connected socket).
//!
//! vhost-user-backend serves only connections that it accepts or makes itself. A connected socket
//! is therefore joined to a private listening one by a thread that passes messages and their
//! descriptors on in both directions. Only the control messages go this way, never a request.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};

/// vhost-user sends at most 8 descriptors with a message (`VHOST_MEMORY_BASELINE_NREGIONS`); the
/// vhost crate accepts 32.
const MAX_FDS: usize = 32;

/// Joins `front_end` to a new connection of `listener`'s socket, until either side ends.
pub(super) fn join(front_end: OwnedFd, listener: &UnixListener) -> io::Result<()> {
    let address = listener.local_addr()?;
    let inner = OwnedFd::from(UnixStream::connect_addr(&address)?);
    let (front_end_2, inner_2) = (front_end.try_clone()?, inner.try_clone()?);
    let spawn = |name: &str, from: OwnedFd, to: OwnedFd| {
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Err(error) = pass_on(&from, &to) {
                tracing::debug!(%error, "relay of the inherited connection ended");
            }
            let _ = shutdown(&to, Shutdown::Both);
            let _ = shutdown(&from, Shutdown::Both);
        })
    };
    spawn("relay-in", front_end, inner)?;
    spawn("relay-out", inner_2, front_end_2)?;
    Ok(())
}

/// A message's header: le32 request, flags, size (vhost-user, "Header").
const HEADER: usize = 12;

/// No message is longer: the vhost crate takes 4 KiB.
const MAX_PAYLOAD: usize = 0x1_0000;

/// Passes message after message on. The boundaries are kept because descriptors belong to the
/// message they came with: a read of more could join them to the one before.
fn pass_on(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    loop {
        let mut message = vec![0; HEADER];
        let mut fds = Vec::new();
        receive(from, &mut message, &mut fds)?;
        let size = u32::from_ne_bytes([message[8], message[9], message[10], message[11]]) as usize;
        if size > MAX_PAYLOAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        message.resize(HEADER + size, 0);
        receive(from, &mut message[HEADER..], &mut fds)?;
        send_all(to, &message, &fds)?;
    }
}

/// Fills `bytes`, and adds the descriptors that came with them to `fds`.
fn receive(from: &OwnedFd, mut bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(bytes)];
        let count = recvmsg(from, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        bytes = &mut bytes[count..];
    }
    Ok(())
}

fn send_all(to: &OwnedFd, mut bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    while !bytes.is_empty() {
        let sent = sendmsg(
            to,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        // The descriptors went with the first bytes.
        ancillary.clear();
        bytes = &bytes[sent..];
    }
    Ok(())
}
