//! Accepting front ends, one after another.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

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
    let source = Source::open(service.endpoint)?;
    let once = service.once || source.single;
    loop {
        if !shutdown
            .wait_for_connection(&source.listener)
            .map_err(ServeError::Accept)?
        {
            return Ok(());
        }
        let backend = Arc::new(Backend::new(
            device.clone(),
            service.metrics.clone(),
            service.poll,
        ));
        serve_one(&backend, &source.listener, shutdown);
        device.disconnected();
        if once || shutdown.requested() {
            return Ok(());
        }
    }
}

/// The listening socket, and what to clean up after it.
struct Source {
    listener: UnixListener,
    remove: Option<PathBuf>,
    /// There is one front end and will be no other.
    single: bool,
}

impl Source {
    fn open(endpoint: Endpoint) -> Result<Self, ServeError> {
        match endpoint {
            Endpoint::Path(path) => {
                let listener = listen::bind(&path)?;
                tracing::info!(socket = %path.display(), "waiting for a front end");
                Ok(Self {
                    listener,
                    remove: Some(path),
                    single: false,
                })
            }
            Endpoint::Inherited(fd) => {
                if socket_acceptconn(&fd).map_err(|e| ServeError::Inherited(e.into()))? {
                    Ok(Self {
                        listener: fd.into(),
                        remove: None,
                        single: false,
                    })
                } else {
                    let listener = private_listener().map_err(ServeError::Inherited)?;
                    relay::join(fd, &listener).map_err(ServeError::Inherited)?;
                    Ok(Self {
                        listener,
                        remove: None,
                        single: true,
                    })
                }
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(path) = &self.remove {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A listening socket at an address that the kernel chooses (unix(7), autobind).
fn private_listener() -> io::Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new_unnamed())?;
    rustix::net::listen(&socket, 1)?;
    Ok(socket.into())
}

fn serve_one<D: Device>(backend: &Arc<Backend<D>>, listener: &UnixListener, shutdown: &Shutdown) {
    let memory = SharedMemory::new(Memory::new());
    let name = "session".to_owned();
    let mut daemon = match VhostUserDaemon::new(name, backend.clone(), memory) {
        Ok(daemon) => daemon,
        Err(error) => return tracing::error!(%error, "cannot start the queues' threads"),
    };
    match connect(&mut daemon, listener) {
        Ok(()) => tracing::info!("front end connected"),
        Err(error) => tracing::warn!(%error, "front end went away before it was accepted"),
    }
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
