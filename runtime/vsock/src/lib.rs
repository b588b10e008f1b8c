//! vhost-user socket device daemon.
//!
//! Bytes to the guest: a program's socket → guest buffers that [`worker`] popped from the receive queue
//! → used ring. Bytes from the guest: transmit queue → [`worker`] → the program's socket; neither is
//! copied here, unless the program is slow. [`packet`] parses, [`hybrid`] is the host's convention,
//! [`connection`] the state of one stream, [`switchboard`] what the two queues' threads share,
//! [`mailbox`] what one has for the other.

pub mod connection;
pub mod device;
pub mod farewell;
pub mod hybrid;
pub mod mailbox;
pub mod metrics;
pub mod options;
pub mod packet;
pub mod switchboard;
pub mod sys;
pub mod system_calls;
pub mod table;
pub mod worker;

use std::io;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use vhost_daemon::daemon::{DaemonError, Prepared};
use vhost_daemon::listen::{self, Endpoint, ListenError, SocketFile};
use vhost_daemon::metrics::{Metrics, Registry};
use vhost_daemon::sandbox::seccomp::{SeccompError, ThreadFilters};
use vhost_daemon::sandbox::{Enclosure, Files, SandboxError};
use vhost_daemon::session::{ServeError, Server, Service};

use device::VsockDevice;
use options::{Config, Options, OptionsError};
use switchboard::Switchboard;

/// The daemon cannot run.
#[derive(Debug, Error)]
pub enum VsockError {
    /// Wrong options.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The programs' socket.
    #[error("--uds-path cannot be served")]
    Programs(#[source] ListenError),
    /// Too few descriptors.
    #[error(
        "{wanted} connections need more open files than this process may have ({most}): raise its \
         limit (ulimit -Hn), or give a smaller --connections"
    )]
    Descriptors {
        /// Connections asked for.
        wanted: usize,
        /// The hard limit.
        most: u64,
    },
    /// Descriptors of our own.
    #[error("the device cannot be made")]
    Device(#[source] io::Error),
    /// The front ends' socket.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The enclosure.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The threads' filters.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// Serving is not possible.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

/// Serves a socket device as `options` say, until told to stop.
///
/// # Errors
/// When it cannot start.
pub fn run(options: Options) -> Result<(), VsockError> {
    let Config {
        common,
        sandbox,
        line,
    } = options.validate()?;
    raise_file_limit(line.connections)?;
    let metrics = Arc::new(Metrics::default());
    let prepared = Prepared::new(common.metrics_socket.as_deref())?;
    let filters = Arc::new(ThreadFilters::new(sandbox.seccomp, system_calls::CALLS)?);
    let path = line.path.clone();
    let listener = listen::bind(&path).map_err(VsockError::Programs)?;
    let _file = SocketFile::new(path.clone());
    let switchboard = Switchboard::new(line, listener, &metrics).map_err(VsockError::Device)?;
    let device = Arc::new(VsockDevice::new(switchboard, metrics.clone()));
    // Only what has to be connected to again needs more than the removal of sockets' files. The
    // sockets that the guest connects to need write permission, which the daemon's user has or not.
    let connects = matches!(common.endpoint, Endpoint::FrontEnd(_));
    let sockets = [common.endpoint.path(), common.metrics_socket, Some(path)];
    let files = match connects {
        true => Files::OnDemand,
        false => Files::removed(sockets.into_iter().flatten()),
    };
    let service = Service {
        endpoint: common.endpoint,
        once: common.once,
        poll: common.poll,
        metrics: metrics.clone(),
    };
    let server = Server::open(&device, service)?.with_filters(filters.clone());
    let enclosure = Enclosure {
        config: sandbox,
        files,
    };
    enclosure.enter()?;
    let daemon = prepared.start(&Arc::new(Registry::of(&metrics)), &filters)?;
    Ok(server.run(daemon.shutdown())?)
}

/// Each connection is a descriptor.
fn raise_file_limit(connections: usize) -> Result<(), VsockError> {
    /// The daemon's own: rings, memory, threads.
    const OWN: u64 = 256;
    let needed = connections as u64 + OWN;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let refused = |most| VsockError::Descriptors {
        wanted: connections,
        most,
    };
    if let Some(most) = limit.maximum.filter(|most| *most < needed) {
        return Err(refused(most));
    }
    let raised = Rlimit {
        current: Some(needed),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|_| refused(limit.maximum.unwrap_or(needed)))
}
