//! Accepting front ends, one after another.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::socket_acceptconn;
use thiserror::Error;
use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::{Error as DaemonError, VhostUserDaemon};

use super::backend::Backend;
use super::{Device, relay};
use crate::listen::{self, Endpoint, ListenError};
use crate::memory::{Memory, SharedMemory};
use crate::metrics::Metrics;
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

/// Serves `device` to one front end after another until `shutdown` is requested (or, with `once`
/// or an inherited connection, until the first one has gone).
///
/// A front end's mistakes end its connection with one log line; the next one is served.
///
/// # Errors
/// When no front end can be served at all.
pub fn serve<D: Device>(
    device: &Arc<D>,
    service: Service,
    shutdown: &Shutdown,
) -> Result<(), ServeError> {
    let mut source = Source::open(service.endpoint)?;
    while let Some(front_end) = source.next(shutdown)? {
        let backend = Arc::new(Backend::new(
            device.clone(),
            service.metrics.clone(),
            service.poll,
        ));
        match relay::join(front_end) {
            Ok(joint) => {
                serve_one(&backend, &joint, shutdown);
                device.disconnected();
            }
            Err(error) => tracing::error!(%error, "cannot take the front end's connection"),
        }
        if service.once || shutdown.requested() {
            break;
        }
    }
    Ok(())
}

/// Where front ends come from, and what to clean up at the end.
enum Source {
    Listening {
        listener: UnixListener,
        remove: Option<PathBuf>,
    },
    /// There is one front end and will be no other.
    Connected(Option<OwnedFd>),
}

impl Source {
    fn open(endpoint: Endpoint) -> Result<Self, ServeError> {
        match endpoint {
            Endpoint::Path(path) => {
                let listener = listen::bind(&path)?;
                tracing::info!(socket = %path.display(), "waiting for a front end");
                Ok(Self::Listening {
                    listener,
                    remove: Some(path),
                })
            }
            Endpoint::Inherited(fd) => {
                if socket_acceptconn(&fd).map_err(|e| ServeError::Inherited(e.into()))? {
                    Ok(Self::Listening {
                        listener: fd.into(),
                        remove: None,
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
            Self::Listening { listener, .. } => loop {
                if !shutdown
                    .wait_for_connection(listener)
                    .map_err(ServeError::Accept)?
                {
                    return Ok(None);
                }
                match listener.accept() {
                    Ok((stream, _)) => return Ok(Some(stream.into())),
                    // It went away again, or descriptors are short for the moment.
                    Err(error) => tracing::warn!(%error, "a front end could not be accepted"),
                }
                thread::sleep(Duration::from_millis(10));
            },
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Self::Listening {
            remove: Some(path), ..
        } = self
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn serve_one<D: Device>(backend: &Arc<Backend<D>>, listener: &UnixListener, shutdown: &Shutdown) {
    let memory = SharedMemory::new(Memory::new());
    let name = "session".to_owned();
    let mut daemon = match VhostUserDaemon::new(name, backend.clone(), memory) {
        Ok(daemon) => daemon,
        Err(error) => return tracing::error!(%error, "cannot start the queues' threads"),
    };
    if let Err(error) = connect(&mut daemon, listener) {
        return tracing::error!(%error, "cannot start the session's thread");
    }
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
        Err(error) => tracing::warn!(%error, "connection ended: the front end broke the protocol"),
    }
}

fn connect<D: Device>(
    daemon: &mut VhostUserDaemon<Arc<Backend<D>>>,
    listener: &UnixListener,
) -> Result<(), DaemonError> {
    let listener: OwnedFd = listener
        .as_fd()
        .try_clone_to_owned()
        .map_err(DaemonError::StartDaemon)?;
    daemon.start(&mut Listener::from(UnixListener::from(listener)))
}
