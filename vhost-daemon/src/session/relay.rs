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

fn pass_on(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let count = recvmsg(from, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
        if count == 0 {
            return Ok(());
        }
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        send_all(to, &bytes[..count], &fds)?;
    }
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
