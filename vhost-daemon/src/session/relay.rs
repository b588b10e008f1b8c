//! Between a front end's socket and the vhost crate.
//!
//! Control messages pass through here, never a request. Two things ask for it: vhost-user-backend
//! serves only connections that it accepts by itself, so an inherited connection (`--fd`) must be
//! offered to it; and the vhost crate insists on exact message sizes where front ends in use are
//! laxer (User-Mode Linux sends `SET_MEM_TABLE` with room for two regions, one of them unused), and
//! on `SET_FEATURES` before `SET_VRING_ENABLE` (QEMU's vhost-user-net enables its rings first).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::thread;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind,
    connect, getsockname, listen, recvmsg, sendmsg, shutdown, socket_with,
};

use super::lenient::{EarlyEnables, HEADER, trim_memory_table};

/// vhost-user sends at most 8 descriptors with a message (`VHOST_MEMORY_BASELINE_NREGIONS`); the
/// vhost crate accepts 32.
const MAX_FDS: usize = 32;

/// A front end's connection on its way to the vhost crate. Dropping it ends the connection.
pub(super) struct Relay {
    listener: Option<UnixListener>,
    front_end: OwnedFd,
}

impl Relay {
    /// Starts to relay `front_end` to the one connection that waits at [`listener`](Self::listener).
    pub(super) fn start(front_end: OwnedFd) -> io::Result<Self> {
        let (listener, inner) = private_connection()?;
        let held = EarlyEnables::holding();
        spawn("relay-in", front_end.try_clone()?, inner.try_clone()?, held)?;
        spawn(
            "relay-out",
            inner,
            front_end.try_clone()?,
            EarlyEnables::Over,
        )?;
        Ok(Self {
            listener: Some(listener),
            front_end,
        })
    }

    /// The listener; it is handed out once, and nothing listens any more when it is dropped.
    pub(super) fn listener(&mut self) -> io::Result<UnixListener> {
        self.listener.take().ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Ends both threads, whatever they wait for.
        let _ = shutdown(&self.front_end, Shutdown::Both);
    }
}

fn spawn(name: &str, from: OwnedFd, to: OwnedFd, mut early: EarlyEnables) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Err(error) = pass_on(&from, &to, &mut early) {
                tracing::debug!(%error, "a direction of the connection ended");
            }
            let _ = shutdown(&to, Shutdown::Both);
            let _ = shutdown(&from, Shutdown::Both);
        })?;
    Ok(())
}

/// A listener at an address that the kernel chooses (unix(7), autobind), with our connection as
/// the only one waiting.
///
/// Anyone on the host may connect to such an address. With a backlog of zero at most one
/// connection waits: ours is taken only if no other is there, and while it waits no other is
/// taken. If a stranger came before, another address is tried.
fn private_connection() -> io::Result<(UnixListener, OwnedFd)> {
    const TRIES: usize = 1000;
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    for _ in 0..TRIES {
        let listener = socket_with(family, kind, flags, None)?;
        bind(&listener, &SocketAddrUnix::new_unnamed())?;
        listen(&listener, 0)?;
        let inner = socket_with(family, kind, flags, None)?;
        match connect(&inner, &getsockname(&listener)?) {
            Ok(()) => {
                rustix::io::ioctl_fionbio(&inner, false)?;
                rustix::io::ioctl_fionbio(&listener, false)?;
                return Ok((listener.into(), inner));
            }
            // A stranger was there first: another address.
            Err(Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::ConnectionRefused.into())
}

/// No message is longer: the vhost crate takes 4 KiB.
const MAX_PAYLOAD: usize = 0x1_0000;

/// Passes message after message on. The boundaries are kept because descriptors belong to the
/// message they came with: a read of more could join them to the one before.
fn pass_on(from: &OwnedFd, to: &OwnedFd, early: &mut EarlyEnables) -> io::Result<()> {
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
        trim_memory_table(&mut message);
        if early.hold(&message)? {
            continue;
        }
        send_all(to, &message, &fds)?;
        for held in early.release(&message) {
            send_all(to, &held, &[])?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_that_waits_is_ours() {
        let (listener, inner) = private_connection().unwrap();
        let (accepted, _) = listener.accept().unwrap();
        rustix::io::write(&inner, b"ours").unwrap();
        let mut bytes = [0; 4];
        std::io::Read::read_exact(&mut &accepted, &mut bytes).unwrap();
        assert_eq!(&bytes, b"ours");
    }
}
