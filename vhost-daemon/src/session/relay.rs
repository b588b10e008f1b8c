//! Between a front end's socket and the vhost crate.
//!
//! Control messages pass through here, never a request. Two things ask for it: vhost-user-backend
//! serves only connections that it accepts by itself, so an inherited connection (`--fd`) must be
//! offered to it; and the vhost crate insists on exact message sizes where front ends in use are
//! laxer (User-Mode Linux sends `SET_MEM_TABLE` with room for two regions, one of them unused), and
//! on `SET_FEATURES` before `SET_VRING_ENABLE` (QEMU's vhost-user-net enables its rings first).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    getsockname, listen, shutdown, socket_with,
};

use super::lenient::{EarlyEnables, HEADER, Passage, trim_memory_table, word};
use super::{FrontEnd, huge_pages, ways_in};
use crate::messages::{receive_and, send};
use crate::sandbox::seccomp::{Role, ThreadFilters};

/// So long a front end may leave its answers alone, once they fill its socket. It is not there any more, perhaps: its
/// end of the connection may be in a message that waits behind them.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// A front end's connection on its way to the vhost crate. Dropping it ends the connection.
pub(super) struct Relay {
    listener: Option<UnixListener>,
    front_end: OwnedFd,
    channel: FrontEnd,
}

impl Relay {
    /// Starts to relay `front_end` to the one connection that waits at [`listener`](Self::listener).
    pub(super) fn start(front_end: OwnedFd, filters: &Arc<ThreadFilters>) -> io::Result<Self> {
        set_socket_timeout(&front_end, Timeout::Send, Some(ANSWER_PATIENCE))?;
        let (listener, inner) = private_connection()?;
        let channel = FrontEnd::default();
        let (mut early, seen) = (EarlyEnables::holding(), channel.clone());
        spawn(
            ("relay-in", filters),
            front_end.try_clone()?,
            inner.try_clone()?,
            ways_in::close,
            move |message| {
                watch_for_channel(message, &seen)?;
                huge_pages::check(&message.bytes, &message.fds).inspect_err(
                    |error| tracing::warn!(%error, "the front end's memory is refused"),
                )?;
                trim_memory_table(&mut message.bytes);
                early.pass(&message.bytes)
            },
        )?;
        spawn(
            ("relay-out", filters),
            inner,
            front_end.try_clone()?,
            |_, _| Ok(()),
            |_| Ok(Passage::Alone),
        )?;
        Ok(Self {
            listener: Some(listener),
            front_end,
            channel,
        })
    }

    /// The way to the front end for what it did not ask for.
    pub(super) fn channel(&self) -> &FrontEnd {
        &self.channel
    }

    /// The listener; it is handed out once, and nothing listens any more when it is dropped.
    pub(super) fn listener(&mut self) -> io::Result<UnixListener> {
        self.listener.take().ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.channel.close();
        // Ends both threads, whatever they wait for.
        let _ = shutdown(&self.front_end, Shutdown::Both);
    }
}

/// One message with the descriptors that came with it.
struct Message {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// Looks at descriptors as soon as they have come by a connection.
type Look = fn(&[OwnedFd], &OwnedFd) -> io::Result<()>;

/// Passes on what `from` says to `to` in a thread of its own; `look` sees descriptors first, `inspect` each message.
fn spawn(
    (name, filters): (&str, &Arc<ThreadFilters>),
    from: OwnedFd,
    to: OwnedFd,
    look: Look,
    mut inspect: impl FnMut(&mut Message) -> io::Result<Passage> + Send + 'static,
) -> io::Result<()> {
    let filters = filters.clone();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let passed = filters.enter(Role::Relay).map_err(io::Error::other);
            if let Err(error) = passed.and_then(|()| pass_on(&from, &to, look, &mut inspect)) {
                tracing::debug!(%error, "a direction of the connection ended");
            }
            let _ = shutdown(&to, Shutdown::Both);
            let _ = shutdown(&from, Shutdown::Both);
        })?;
    Ok(())
}

/// `VHOST_USER_SET_BACKEND_REQ_FD`
const SET_BACKEND_REQ_FD: u32 = 21;

fn watch_for_channel(message: &Message, channel: &FrontEnd) -> io::Result<()> {
    match (word(&message.bytes, 0), message.fds.as_slice()) {
        (Some(SET_BACKEND_REQ_FD), [fd]) => channel.open(fd),
        _ => Ok(()),
    }
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
fn pass_on(
    from: &OwnedFd,
    to: &OwnedFd,
    look: Look,
    inspect: &mut impl FnMut(&mut Message) -> io::Result<Passage>,
) -> io::Result<()> {
    let look = |new: &[OwnedFd]| look(new, from);
    loop {
        let mut message = Message {
            bytes: vec![0; HEADER],
            fds: Vec::new(),
        };
        receive_and(from, &mut message.bytes, &mut message.fds, look)?;
        let size = word(&message.bytes, 8).unwrap_or(0) as usize;
        if size > MAX_PAYLOAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        message.bytes.resize(HEADER + size, 0);
        receive_and(from, &mut message.bytes[HEADER..], &mut message.fds, look)?;
        match inspect(&mut message)? {
            Passage::Held => {}
            Passage::Alone => send_all(to, &message.bytes, &message.fds)?,
            Passage::Before(held) => {
                send_all(to, &message.bytes, &message.fds)?;
                for bytes in held {
                    send_all(to, &bytes, &[])?;
                }
            }
        }
    }
}

fn send_all(to: &OwnedFd, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    send(to, bytes, &borrowed, SendFlags::empty())
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
