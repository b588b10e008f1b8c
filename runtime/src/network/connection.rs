//! One forwarded connection.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::pump::Pump;

/// One accepted connection and its other half in the guest's network.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: TcpStream,
    pub(super) guest: TcpStream,
    connecting: bool,
    to_guest: Pump,
    to_client: Pump,
}

impl Connection {
    pub(super) fn open(client: TcpStream, target: SocketAddrV4) -> io::Result<Self> {
        client.set_nonblocking(true)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let guest = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match connect(&guest, &SocketAddr::V4(target)) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let guest = TcpStream::from(guest);
        client.set_nodelay(true)?;
        guest.set_nodelay(true)?;
        Ok(Self {
            client,
            guest,
            connecting: true,
            to_guest: Pump::new(),
            to_client: Pump::new(),
        })
    }

    /// What to wait for at the client and at the guest.
    pub(super) fn interest(&self) -> [PollFlags; 2] {
        if self.connecting {
            return [PollFlags::empty(), PollFlags::OUT];
        }
        let flags = |reads: bool, writes: bool| {
            let read = if reads {
                PollFlags::IN
            } else {
                PollFlags::empty()
            };
            let write = if writes {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            read | write
        };
        [
            flags(self.to_guest.wants_source(), self.to_client.wants_sink()),
            flags(self.to_client.wants_source(), self.to_guest.wants_sink()),
        ]
    }

    /// Moves what can be moved; says whether the connection lives on. One that fails resets both
    /// sides: an end would look as if all had arrived.
    pub(super) fn advance(&mut self) -> bool {
        let lives = self.try_advance();
        if lives.is_err() {
            for stream in [&self.client, &self.guest] {
                // It may be gone already, and then there is nothing to reset.
                let _ = set_socket_linger(stream, Some(Duration::ZERO));
            }
        }
        lives.unwrap_or(false)
    }

    fn try_advance(&mut self) -> io::Result<bool> {
        if self.connecting {
            if let Some(error) = self.guest.take_error()? {
                return Err(error);
            }
            self.connecting = false;
        }
        self.to_guest.advance(&self.client, &self.guest)?;
        self.to_client.advance(&self.guest, &self.client)?;
        Ok(!(self.to_guest.is_finished() && self.to_client.is_finished()))
    }
}
