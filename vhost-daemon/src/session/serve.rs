//! Accepting front ends, one after another.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{RecvFlags, recv};
use thiserror::Error;
use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::{Error as DaemonError, VhostUserDaemon};

use super::Device;
use super::backend::Backend;
use super::relay::Relay;
use crate::listen::{Endpoint, ListenError, SocketFile};
use crate::log::Limiter;
use crate::memory::{Memory, SharedMemory};
use crate::metrics::Metrics;
use crate::sandbox::seccomp::ThreadFilters;
use crate::shutdown::Shutdown;
use crate::worker::PollPolicy;

/// A daemon cannot serve at all.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The socket cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The inherited descriptor is no unix socket.
    #[error("the inherited descriptor cannot be used as a socket")]
    Inherited(#[source] io::Error),
    /// More queues than can be served.
    #[error("a device of {0} queues: at most {MAX_QUEUES} can be served")]
    TooManyQueues(usize),
    /// Waiting for connections failed.
    #[error("cannot wait for front ends")]
    Accept(#[source] io::Error),
}

/// How a daemon serves its device.
pub struct Service {
    /// Where front ends come from.
    pub endpoint: Endpoint,
    /// Whether to return after the first front end.
    pub once: bool,
    /// Polling of the queues' threads.
    pub poll: PollPolicy,
    /// Where the queues count.
    pub metrics: Arc<Metrics>,
}

/// A device whose socket is open: front ends can connect, and are served once it [runs](Self::run).
pub struct Server<D> {
    device: Arc<D>,
    source: Source,
    once: bool,
    poll: PollPolicy,
    metrics: Arc<Metrics>,
    filters: Arc<ThreadFilters>,
}

impl<D: Device> Server<D> {
    /// Opens the socket.
    ///
    /// # Errors
    /// When the device cannot be served there.
    pub fn open(device: &Arc<D>, service: Service) -> Result<Self, ServeError> {
        let queues = device.queues();
        if queues > MAX_QUEUES {
            return Err(ServeError::TooManyQueues(queues));
        }
        Ok(Self {
            device: device.clone(),
            source: Source::open(service.endpoint)?,
            once: service.once,
            poll: service.poll,
            metrics: service.metrics,
            filters: Arc::default(),
        })
    }

    /// Binds the threads of each connection to `filters`. The calling thread of
    /// [`run`](Self::run) is bound already, or not at all.
    #[must_use]
    pub fn with_filters(mut self, filters: Arc<ThreadFilters>) -> Self {
        self.filters = filters;
        self
    }

    /// Those filters.
    pub(super) fn filters(&self) -> &ThreadFilters {
        &self.filters
    }

    /// Serves one front end after another until `shutdown` is requested (or, with `once` or an
    /// inherited connection, until the first one has gone). The socket's file goes at the end.
    ///
    /// A front end's mistakes end its connection with one log line; the next one is served.
    ///
    /// # Errors
    /// When no further front end can be waited for.
    pub fn run(mut self, shutdown: &Shutdown) -> Result<(), ServeError> {
        let metrics = self.metrics.clone();
        let _named = metrics.name_log_lines();
        while let Some(front_end) = self.source.next(shutdown)? {
            if let Err(error) = self.serve_one(front_end, shutdown) {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the front end cannot be served");
            }
            if self.once || shutdown.requested() {
                break;
            }
        }
        Ok(())
    }

    /// Serves one front end until it goes; then every queue is drained and everything of the
    /// connection is given back.
    fn serve_one(&self, front_end: OwnedFd, shutdown: &Shutdown) -> Result<(), ConnectionError> {
        let mut relay = Relay::start(front_end, &self.filters)?;
        let listener = relay.listener()?;
        let (device, metrics) = (self.device.clone(), self.metrics.clone());
        let backend = Backend::new(device, metrics, self.poll, self.filters.clone())?;
        let backend = Arc::new(backend);
        self.device.connected(relay.channel());
        let served = run_session(&backend, listener, shutdown);
        // The library is gone with its threads; so is the front end, heard or not.
        backend.clean_up();
        drop(relay);
        self.device.disconnected();
        served
    }
}

/// Opens the socket and serves `device`: [`Server::open`], then [`Server::run`].
///
/// # Errors
/// When no front end can be served at all.
pub fn serve<D: Device>(
    device: &Arc<D>,
    service: Service,
    shutdown: &Shutdown,
) -> Result<(), ServeError> {
    Server::open(device, service)?.run(shutdown)
}

/// vhost-user-backend keeps the queues of a thread in the bits of a word.
const MAX_QUEUES: usize = 64;

/// Where front ends come from, and what to clean up at the end.
enum Source {
    Listening {
        listener: UnixListener,
        /// Goes at the end.
        _file: Option<SocketFile>,
        limiter: Limiter,
    },
    /// The front end listens.
    Connecting(PathBuf),
    /// There is one front end and will be no other.
    Connected(Option<OwnedFd>),
}

impl Source {
    fn open(endpoint: Endpoint) -> Result<Self, ServeError> {
        if let Endpoint::Bound(..) = endpoint {
            let path = endpoint.path().unwrap_or_default();
            tracing::info!(socket = %path.display(), "waiting for a front end");
        }
        match endpoint {
            Endpoint::Path(_) => Self::open(endpoint.bind(None)?),
            Endpoint::Bound(listener, _file) => Ok(Self::Listening {
                listener,
                _file,
                limiter: Limiter::default(),
            }),
            Endpoint::FrontEnd(path) => {
                tracing::info!(socket = %path.display(), "connecting to the front end");
                Ok(Self::Connecting(path))
            }
            Endpoint::Inherited(fd) => {
                if socket_acceptconn(&fd).map_err(|e| ServeError::Inherited(e.into()))? {
                    Ok(Self::Listening {
                        listener: fd.into(),
                        _file: None,
                        limiter: Limiter::default(),
                    })
                } else {
                    Ok(Self::Connected(Some(fd)))
                }
            }
        }
    }

    /// The next front end's connection; `None` when there will be no more.
    fn next(&mut self, shutdown: &Shutdown) -> Result<Option<OwnedFd>, ServeError> {
        match self {
            Self::Connected(front_end) => Ok(front_end.take()),
            Self::Connecting(path) => connect(path, shutdown),
            Self::Listening {
                listener, limiter, ..
            } => loop {
                if !shutdown
                    .wait_for_input(listener)
                    .map_err(ServeError::Accept)?
                {
                    return Ok(None);
                }
                match listener.accept() {
                    Ok((stream, _)) => {
                        let front_end = OwnedFd::from(stream);
                        if speaks(&front_end, shutdown)? {
                            return Ok(Some(front_end));
                        }
                    }
                    Err(error) => {
                        // It went away again, or descriptors are short for the moment.
                        if let Some(suppressed) = limiter.permit() {
                            tracing::warn!(%error, suppressed, "a front end was not accepted");
                        }
                        thread::sleep(Duration::from_millis(100));
                    }
                }
            },
        }
    }
}

/// Connects to a front end, however long it takes to come.
fn connect(path: &Path, shutdown: &Shutdown) -> Result<Option<OwnedFd>, ServeError> {
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        // A front end may accept and hang up at once, again and again: never without a pause.
        let over = shutdown.requested_within(PAUSE);
        if over.map_err(ServeError::Accept)? {
            return Ok(None);
        }
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(Some(stream.into())),
            Err(error) => tracing::debug!(%error, "the front end does not listen yet"),
        }
    }
}

/// Whether the other side says something. One that only looks whether the socket is in use (as
/// [`bind`](crate::listen::bind) does) is no front end.
fn speaks(front_end: &OwnedFd, shutdown: &Shutdown) -> Result<bool, ServeError> {
    if !shutdown
        .wait_for_input(front_end)
        .map_err(ServeError::Accept)?
    {
        return Ok(false);
    }
    let mut first = [0; 1];
    let peeked = recv(front_end, &mut first, RecvFlags::PEEK | RecvFlags::DONTWAIT);
    Ok(matches!(peeked, Ok((1, _))))
}

/// A front end's connection cannot be served: something of the host's is short.
#[derive(Debug, Error)]
enum ConnectionError {
    #[error("descriptors or threads are short")]
    Resources(#[from] io::Error),
    #[error("the session cannot be started: {0}")]
    Session(DaemonError),
}

fn run_session<D: Device>(
    backend: &Arc<Backend<D>>,
    listener: UnixListener,
    shutdown: &Shutdown,
) -> Result<(), ConnectionError> {
    let memory = SharedMemory::new(Memory::new());
    let mut daemon = VhostUserDaemon::new("session".to_owned(), backend.clone(), memory)
        .map_err(ConnectionError::Session)?;
    daemon
        .start(&mut Listener::from(listener))
        .map_err(ConnectionError::Session)?;
    tracing::info!("front end connected");
    if let Some(handle) = daemon.shutdown_handle() {
        shutdown.attach(handle);
    }
    let ended = daemon.wait();
    shutdown.detach();
    // Every queue is drained here, before the library joins its threads and unmaps the memory.
    backend.close();
    match ended {
        Ok(()) | Err(DaemonError::HandleRequest(ProtocolError::Disconnected)) => {
            tracing::info!("front end disconnected");
        }
        Err(DaemonError::WaitDaemon(_)) => tracing::error!("the session's thread panicked"),
        Err(error) => tracing::warn!(%error, "connection ended: the front end broke the protocol"),
    }
    Ok(())
}
