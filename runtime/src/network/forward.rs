//! Forwards TCP ports of the host's loopback into a run's network namespace.
//!
//! One thread enters the namespace and runs a poll loop. The listeners were made before, in the
//! host's namespace, and a socket stays where it was made; what the thread connects starts in the
//! guest's network. No route and no firewall rule is touched.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::connection::Connection;
use super::{GUEST_ADDRESS, NetworkError};
use crate::options::Publish;

/// Connections served at once; more wait in the listen queue. Two descriptors each fit well below
/// the usual limit of 1024.
const MOST_CONNECTIONS: usize = 400;

/// How long accepting pauses when the process is out of descriptors, in nanoseconds.
const PAUSE_NS: i64 = 20_000_000;

/// Forwarded ports of a run. They stop when the process ends, or all descriptors of it close.
#[derive(Debug)]
pub struct Forwarder {
    /// What was asked for, with the host's port that was really taken.
    pub published: Vec<Publish>,
    /// Closing it ends the thread.
    _alive: OwnedFd,
}

impl Forwarder {
    /// Starts forwarding into `namespace`, to the guest's address there.
    ///
    /// # Errors
    /// When a port is taken or the thread cannot enter the namespace.
    pub fn start(publish: &[Publish], namespace: OwnedFd) -> Result<Self, NetworkError> {
        let enter = move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).map_err(io::Error::from)
        };
        Self::start_to(publish, GUEST_ADDRESS, enter)
    }

    fn start_to(
        publish: &[Publish],
        target: Ipv4Addr,
        enter: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Self, NetworkError> {
        let listeners: Vec<_> = publish
            .iter()
            .map(|ports| listen(*ports, target))
            .collect::<Result<_, _>>()?;
        let published = listeners
            .iter()
            .map(|listener| listener.published)
            .collect();
        let (watched, alive) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| NetworkError::Forward(error.into()))?;
        let (entered, has_entered) = std::sync::mpsc::channel();
        let forward = move || {
            let result = enter();
            let ready = result.is_ok();
            if entered.send(result).is_ok() && ready {
                Loop {
                    listeners,
                    alive: watched,
                    connections: Vec::new(),
                }
                .run();
            }
        };
        thread::Builder::new()
            .name("forward".into())
            .spawn(forward)
            .map_err(NetworkError::Forward)?;
        let result = has_entered
            .recv()
            .unwrap_or_else(|_| Err(ErrorKind::Other.into()));
        result.map_err(NetworkError::Forward)?;
        Ok(Self {
            published,
            _alive: alive,
        })
    }
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    published: Publish,
    target: SocketAddrV4,
}

fn listen(ports: Publish, target: Ipv4Addr) -> Result<Listener, NetworkError> {
    let failed = |source| NetworkError::Listen {
        port: ports.host,
        source,
    };
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.host)).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let host = socket.local_addr().map_err(failed)?.port();
    let published = Publish {
        host,
        guest: ports.guest,
    };
    Ok(Listener {
        socket,
        published,
        target: SocketAddrV4::new(target, ports.guest),
    })
}

struct Loop {
    listeners: Vec<Listener>,
    alive: OwnedFd,
    connections: Vec<Connection>,
}

impl Loop {
    fn run(mut self) {
        loop {
            match self.wait() {
                Ok(Ready { ended: true, .. }) => return,
                Ok(ready) => self.serve(&ready),
                Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "published ports are no longer forwarded");
                    return;
                }
            }
        }
    }

    fn wait(&self) -> Result<Ready, Errno> {
        let room = self.connections.len() < MOST_CONNECTIONS;
        let accepting = if room {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let mut fds = vec![PollFd::new(&self.alive, PollFlags::empty())];
        fds.extend(
            self.listeners
                .iter()
                .map(|listener| PollFd::new(&listener.socket, accepting)),
        );
        for connection in &self.connections {
            let [client, guest] = connection.interest();
            // A side that is not waited for still reports errors: leave it out, or poll would spin.
            fds.push(watch(&connection.client, client, &self.alive));
            fds.push(watch(&connection.guest, guest, &self.alive));
        }
        poll(&mut fds, None)?;
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (first, connections) = ready.split_at(1 + self.listeners.len());
        Ok(Ready {
            ended: first[0],
            listeners: first[1..].to_vec(),
            connections: connections
                .chunks(2)
                .map(|pair| pair.contains(&true))
                .collect(),
        })
    }

    fn serve(&mut self, ready: &Ready) {
        let mut ready_connections = ready.connections.iter();
        self.connections.retain_mut(|connection| {
            // A connection that fails ends alone.
            !ready_connections.next().is_some_and(|ready| *ready) || connection.advance()
        });
        for (listener, ready) in self.listeners.iter().zip(&ready.listeners) {
            if *ready {
                accept(listener, &mut self.connections);
            }
        }
    }
}

struct Ready {
    ended: bool,
    listeners: Vec<bool>,
    connections: Vec<bool>,
}

/// Watches `stream` for `interest`; for nothing to wait for, watches the quiet descriptor instead.
fn watch<'a>(stream: &'a TcpStream, interest: PollFlags, quiet: &'a OwnedFd) -> PollFd<'a> {
    if interest.is_empty() {
        PollFd::new(quiet, interest)
    } else {
        PollFd::new(stream, interest)
    }
}

fn accept(listener: &Listener, connections: &mut Vec<Connection>) {
    let opened = listener
        .socket
        .accept()
        .and_then(|(client, _)| Connection::open(client, listener.target));
    match opened {
        Ok(connection) => connections.push(connection),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => {
            tracing::warn!(%error, port = listener.published.host, "cannot forward a connection");
            // Out of descriptors, most likely: the listener stays ready, so do not spin.
            let pause = Timespec {
                tv_sec: 0,
                tv_nsec: PAUSE_NS,
            };
            let _ = poll(&mut [], Some(&pause));
        }
    }
}

#[cfg(test)]
mod tests;
