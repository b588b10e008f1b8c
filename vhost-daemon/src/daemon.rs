//! A daemon's life: options are validated, the device is open, now serve it.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use thiserror::Error;

use crate::listen::{ListenError, SocketFile};
use crate::metrics::{Metrics, MetricsServer, MetricsSocket, Registry};
use crate::options::CommonConfig;
use crate::sandbox::seccomp::{Calls, Role, SeccompError, ThreadFilters};
use crate::sandbox::{Enclosure, EnclosureConfig, Files, SandboxError};
use crate::session::{Device, ServeError, Server, Service};
use crate::shutdown::Shutdown;
use crate::sys::{Reactor, expect_interruption, expect_lost_memory};

/// A daemon cannot run.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The front ends' socket.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The metrics socket.
    #[error("the metrics cannot be served")]
    Metrics(#[source] ListenError),
    /// io_uring as we use it is missing or forbidden.
    #[error(
        "io_uring is needed (Linux 6.1 or later; not forbidden by kernel.io_uring_disabled or a \
         seccomp filter)"
    )]
    IoUring(#[source] io::Error),
    /// The daemon cannot be closed in.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The main thread's filter.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// Signals or the stop event.
    #[error("cannot prepare for signals")]
    Signals(#[from] io::Error),
}

/// Lets the process have as many descriptors as its hard limit allows: some thirty for each device. The
/// usual soft limit of 1024 is for programs that call select(2).
pub fn raise_descriptor_limit() {
    raise_to_hard_limit(Resource::Nofile, "open files (RLIMIT_NOFILE)");
}

fn raise_to_hard_limit(resource: Resource, name: &str) {
    let limit = getrlimit(resource);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(resource, raised) {
        tracing::warn!(%error, "the limit of {name} stays at {:?}", limit.current);
    }
}

/// Lets the process lock as much memory as it may be allowed: Linux counts the io_urings of all of a user's processes
/// that have no CAP_IPC_LOCK together, 104 KiB for a queue of 1024 entries (6.18), and the usual 8 MiB do for some
/// fifteen guests.
fn raise_memory_lock_limit() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    // Beyond the hard limit only with CAP_SYS_RESOURCE, which is given up after this.
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        raise_to_hard_limit(Resource::Memlock, "locked memory (RLIMIT_MEMLOCK)");
    }
}

/// What a daemon must have before it is closed in: its metrics socket, and signals that do not end
/// it.
pub struct Prepared {
    signals: Signals,
    metrics: Option<MetricsSocket>,
    shutdown: Arc<Shutdown>,
}

impl Prepared {
    /// Binds the metrics socket, takes signals and raises the limit of locked memory.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub fn new(metrics_socket: Option<&Path>) -> Result<Self, DaemonError> {
        raise_memory_lock_limit();
        let metrics = metrics_socket
            .map(MetricsSocket::bind)
            .transpose()
            .map_err(DaemonError::Metrics)?;
        Ok(Self {
            signals: Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?,
            metrics,
            shutdown: Arc::new(Shutdown::new()?),
        })
    }

    /// The request to stop, as [`Daemon::shutdown`].
    pub fn shutdown(&self) -> &Arc<Shutdown> {
        &self.shutdown
    }

    /// Takes over the removal of the metrics socket's file.
    pub fn take_file(&mut self) -> Option<SocketFile> {
        self.metrics.as_mut()?.take_file()
    }

    /// Binds this thread, and so all that come, to `filters`; then starts watching signals and
    /// serving metrics, and makes sure that io_uring can be had.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub fn start(
        self,
        metrics: &Arc<Registry>,
        filters: &Arc<ThreadFilters>,
    ) -> Result<Daemon, DaemonError> {
        expect_lost_memory()?;
        expect_interruption()?;
        filters.enter(Role::Main)?;
        Reactor::<()>::new(1).map_err(DaemonError::IoUring)?;
        let shutdown = self.shutdown;
        watch_signals(self.signals, &shutdown, metrics, filters)?;
        let server = self
            .metrics
            .map(|socket| socket.serve(metrics.clone(), filters.clone()))
            .transpose()?;
        Ok(Daemon {
            shutdown,
            _metrics: server,
        })
    }
}

/// What every daemon has, whatever it serves: it stops on SIGTERM, SIGINT and SIGHUP, shows its
/// metrics on a socket, and writes them to the log on SIGUSR1.
pub struct Daemon {
    shutdown: Arc<Shutdown>,
    _metrics: Option<MetricsServer>,
}

impl Daemon {
    /// The request to stop, made by a signal or by the program itself.
    pub fn shutdown(&self) -> &Arc<Shutdown> {
        &self.shutdown
    }
}

/// Closes the process in, then serves the one `device` of a daemon until a signal asks to stop (or the
/// end of the only front end). To be called while there is one thread; `calls` are what its threads
/// need.
///
/// # Errors
/// When the daemon cannot start to serve.
pub fn run<D: Device>(
    device: &Arc<D>,
    config: CommonConfig,
    metrics: Arc<Metrics>,
    enclosure: EnclosureConfig,
    calls: Calls,
) -> Result<(), DaemonError> {
    let registry = Arc::new(Registry::of(&metrics));
    let prepared = Prepared::new(config.metrics_socket.as_deref())?;
    let sockets = [config.endpoint.path(), config.metrics_socket];
    let filters = Arc::new(ThreadFilters::new(enclosure.seccomp, calls)?);
    let service = Service {
        endpoint: config.endpoint,
        once: config.once,
        poll: config.poll,
        metrics,
    };
    let server = Server::open(device, service)?.with_filters(filters.clone());
    let enclosure = Enclosure {
        config: enclosure,
        files: Files::removed(sockets.into_iter().flatten()),
    };
    enclosure.enter()?;
    let daemon = prepared.start(&registry, &filters)?;
    server.run(daemon.shutdown())?;
    Ok(())
}

fn watch_signals(
    mut signals: Signals,
    shutdown: &Arc<Shutdown>,
    metrics: &Arc<Registry>,
    filters: &Arc<ThreadFilters>,
) -> io::Result<()> {
    let (shutdown, metrics, filters) = (shutdown.clone(), metrics.clone(), filters.clone());
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Err(error) = filters.enter(Role::Signals) {
                tracing::error!(%error, "the thread of signals keeps the wider list");
            }
            for signal in &mut signals {
                if signal == SIGUSR1 {
                    for line in metrics
                        .render()
                        .lines()
                        .filter(|line| !line.starts_with('#'))
                    {
                        tracing::info!("{line}");
                    }
                } else {
                    tracing::info!(signal, "asked to stop");
                    shutdown.request();
                }
            }
        })?;
    Ok(())
}

/// The exit code of a `main`: an error goes to standard error as one sentence with its causes.
pub fn exit_code<E: std::error::Error>(program: &str, result: Result<(), E>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("{program}: {}", sentence(&error));
    ExitCode::FAILURE
}

/// An error with its causes as one sentence.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        sentence.push_str(&format!(": {source}"));
        cause = source.source();
    }
    sentence
}
