//! Forwards TCP ports of the host's loopback into a run's network namespace.
//!
//! One thread enters the namespace and runs a poll loop. The listeners were made before, in the
//! host's namespace, and a socket stays where it was made; what the thread connects starts in the
//! guest's network. No route and no firewall rule is touched.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::pump::Pump;
use super::{GUEST_ADDRESS, NetworkError};
use crate::options::Publish;

/// Connections served at once; more wait in the listen queue.
const MOST_CONNECTIONS: usize = 1024;

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

/// One accepted connection and its other half in the guest's network.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    guest: TcpStream,
    connecting: bool,
    to_guest: Pump,
    to_client: Pump,
}

impl Connection {
    fn open(client: TcpStream, target: SocketAddrV4) -> io::Result<Self> {
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
    fn interest(&self) -> [PollFlags; 2] {
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

    /// Moves what can be moved; says whether the connection lives on.
    fn advance(&mut self) -> io::Result<bool> {
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
            // A connection that fails ends alone; its peer sees the reset.
            !ready_connections.next().is_some_and(|ready| *ready)
                || connection.advance().unwrap_or(false)
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
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;

    use super::*;

    fn forward_to(server: &TcpListener) -> (Forwarder, TcpStream) {
        let guest = server.local_addr().unwrap().port();
        let publish = [Publish { host: 0, guest }];
        let forwarder = Forwarder::start_to(&publish, Ipv4Addr::LOCALHOST, || Ok(())).unwrap();
        let host = forwarder.published[0].host;
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, host)).unwrap();
        (forwarder, client)
    }

    #[test]
    fn an_answer_still_comes_after_the_question_ended() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_forwarder, mut client) = forward_to(&server);
        let (mut guest, _) = server.accept().unwrap();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut question = String::new();
        guest.read_to_string(&mut question).unwrap();
        guest
            .write_all(question.replace("question", "answer").as_bytes())
            .unwrap();
        drop(guest);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    }

    #[test]
    fn a_slow_reader_gets_every_byte() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_forwarder, mut client) = forward_to(&server);
        let (mut guest, _) = server.accept().unwrap();
        let sent: Vec<u8> = (0..16_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let expected = sent.clone();
        let writer = thread::spawn(move || client.write_all(&sent).map(|()| drop(client)));
        thread::sleep(std::time::Duration::from_millis(200));
        assert!(
            !writer.is_finished(),
            "nobody reads, so the writer must wait"
        );
        let mut received = Vec::new();
        guest.read_to_end(&mut received).unwrap();
        writer.join().unwrap().unwrap();
        assert!(received == expected);
    }

    #[test]
    fn a_closed_port_closes_the_connection() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap();
        let (_forwarder, _client) = forward_to(&server);
        drop(server);
        let publish = [Publish {
            host: 0,
            guest: port.port(),
        }];
        let forwarder = Forwarder::start_to(&publish, Ipv4Addr::LOCALHOST, || Ok(())).unwrap();
        let mut client =
            TcpStream::connect((Ipv4Addr::LOCALHOST, forwarder.published[0].host)).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
    }

    #[test]
    fn the_port_is_free_after_the_forwarder() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (forwarder, client) = forward_to(&server);
        let port = forwarder.published[0].host;
        drop((forwarder, client));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            assert!(
                std::time::Instant::now() < deadline,
                "the listener is still there"
            );
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn a_taken_port_is_named() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = server.local_addr().unwrap().port();
        let publish = [Publish { host, guest: 1 }];
        let error = Forwarder::start_to(&publish, Ipv4Addr::LOCALHOST, || Ok(())).unwrap_err();
        assert!(error.to_string().contains(&host.to_string()), "{error}");
    }
}
