//! The machine's API: HTTP and JSON on a unix socket, for its owner. One thread serves all clients, and
//! carries out one order after another. `docs/vmm-api.yaml` describes it.

mod exchange;
mod http;
mod routes;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

use vhost_daemon::listen::{self, ListenError};

pub use exchange::Exchange;
pub use routes::Target;

/// Clients at a time; more wait.
const MOST_CLIENTS: usize = 16;
/// How long a request may take to arrive, or its answer to be read.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may keep its connection without asking for anything.
const IDLE: Duration = Duration::from_secs(60);
/// How long whoever ended the machine has to read the answer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why there is no API.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The socket.
    #[error("--api-socket: cannot listen on it")]
    Socket(#[from] ListenError),
    /// No thread.
    #[error("no thread for the API")]
    Thread(#[source] io::Error),
}

/// The socket. When this is dropped, what is being answered is answered, and the socket is removed.
#[derive(Debug)]
pub struct Api {
    path: PathBuf,
    busy: Arc<AtomicBool>,
}

impl Api {
    /// Listens, and starts the thread. Only processes of this user, or of root, are served.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn serve(path: &Path, target: impl Target + Send + 'static) -> Result<Self, ApiError> {
        let listener = listen::bind(path)?;
        listener.set_nonblocking(true).map_err(|source| {
            let path = path.to_owned();
            ListenError::Bind { path, source }
        })?;
        let api = Self {
            path: path.to_owned(),
            busy: Arc::default(),
        };
        let server = Server {
            listener,
            target,
            clients: Vec::new(),
            busy: api.busy.clone(),
        };
        Builder::new()
            .name("api".into())
            .spawn(move || server.run())
            .map_err(ApiError::Thread)?;
        Ok(api)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let give_up = Instant::now() + LAST_WORDS;
        while self.busy.load(Ordering::Acquire) && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Server<T> {
    listener: UnixListener,
    target: T,
    clients: Vec<Client>,
    /// Somebody's answer is not sent yet.
    busy: Arc<AtomicBool>,
}

struct Client {
    stream: UnixStream,
    exchange: Exchange,
    /// Gone by then, unless something is finished before.
    deadline: Instant,
    gone: bool,
}

impl<T: Target> Server<T> {
    fn run(mut self) {
        loop {
            let (accepts, ready) = self.wait();
            if accepts {
                self.accept();
            }
            self.busy.store(true, Ordering::Release);
            for (client, ready) in self.clients.iter_mut().zip(ready) {
                client.go_on(ready, &self.target);
            }
            let mut clients = self.clients.iter();
            let sends = clients.any(|it| !it.gone && !it.exchange.outgoing().is_empty());
            self.busy.store(sends, Ordering::Release);
            let now = Instant::now();
            let stays = |client: &Client| !client.gone && now < client.deadline;
            self.clients.retain(stays);
        }
    }

    /// Waits for something to do: whether there is a new client, and what each old one is ready for.
    fn wait(&self) -> (bool, Vec<PollFlags>) {
        let nearest = self.clients.iter().map(|client| client.deadline).min();
        let timeout = nearest.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec::try_from(left).unwrap_or_default()
        });
        let watch = |client| {
            let client: &Client = client;
            let sends = !client.exchange.outgoing().is_empty();
            let wanted = if sends { PollFlags::OUT } else { PollFlags::IN };
            PollFd::new(&client.stream, wanted)
        };
        let mut polled: Vec<_> = self.clients.iter().map(watch).collect();
        if self.clients.len() < MOST_CLIENTS {
            polled.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        // Interrupted, or out of memory for a moment: nobody is ready.
        if poll(&mut polled, timeout.as_ref()).is_err() {
            return (false, Vec::new());
        }
        let mut ready: Vec<_> = polled.iter().map(PollFd::revents).collect();
        let listener = ready.split_off(self.clients.len()).pop();
        (listener.is_some_and(|ready| !ready.is_empty()), ready)
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        // Whoever may read the socket's directory cannot go further than this.
        if !listen::is_owner(&stream) || stream.set_nonblocking(true).is_err() {
            tracing::debug!("somebody else's connection to the API is refused");
            return;
        }
        self.clients.push(Client {
            stream,
            exchange: Exchange::default(),
            deadline: Instant::now() + PATIENCE,
            gone: false,
        });
    }
}

impl Client {
    fn go_on(&mut self, ready: PollFlags, target: &dyn Target) {
        if ready.is_empty() {
            return;
        }
        let was_idle = self.exchange.is_idle();
        let gone_on = if self.exchange.outgoing().is_empty() {
            self.receive(target)
        } else {
            self.send(target)
        };
        self.gone = gone_on.is_err() || self.exchange.is_over();
        // What has begun has its time; what is finished waits for the next request.
        if self.exchange.is_idle() {
            self.deadline = Instant::now() + IDLE;
        } else if was_idle {
            self.deadline = Instant::now() + PATIENCE;
        }
    }

    fn receive(&mut self, target: &dyn Target) -> io::Result<()> {
        let mut bytes = vec![0; self.exchange.room().min(16 << 10)];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.exchange.feed(&bytes[..count], target);
                self.send(target)
            }
            Err(error) => unless_later(error),
        }
    }

    fn send(&mut self, target: &dyn Target) -> io::Result<()> {
        while !self.exchange.outgoing().is_empty() {
            match self.stream.write(self.exchange.outgoing()) {
                Ok(count) => self.exchange.sent(count),
                Err(error) => return unless_later(error),
            }
            // The next request may be here already.
            self.exchange.feed(&[], target);
            self.deadline = Instant::now() + PATIENCE;
        }
        Ok(())
    }
}

fn unless_later(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests;
