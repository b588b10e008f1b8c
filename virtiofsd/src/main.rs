//! `virtiofsd`: shares a directory of the host with virtual machines.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use thiserror::Error;
use vhost_daemon::daemon::{self, DaemonError, Prepared};
use vhost_daemon::listen::ListenError;
use vhost_daemon::log::FilterError;
use vhost_daemon::metrics::{Metrics, Registry};
use vhost_daemon::sandbox::seccomp::{Role, SeccompError, ThreadFilters};
use vhost_daemon::sandbox::{Sandbox, SandboxError, capabilities, close_inherited};
use vhost_daemon::session::{ServeError, Server, Service};
use virtiofsd::device::{FsDevice, QUEUE_SIZE, queues};
use virtiofsd::helpers::Helpers;
use virtiofsd::keeper::{self, Held, Keeper, KeeperError};
use virtiofsd::limits::{LimitError, make_room_for_descriptors, raise_open_files};
use virtiofsd::options::{Action, CAPABILITIES, ConfigError, DaemonConfig, Options};
use virtiofsd::passthrough::{OpenError, Passthrough};
use virtiofsd::server::Server as FsServer;
use virtiofsd::state::{State, StateError};
use virtiofsd::system_calls::CALLS;

#[derive(Debug, Error)]
enum Error {
    #[error(transparent)]
    Options(#[from] ConfigError),
    #[error("--log-level is not a level or filter")]
    LogLevel(#[from] FilterError),
    #[error(transparent)]
    OpenFiles(#[from] LimitError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    #[error(transparent)]
    Share(#[from] OpenError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Keep(#[from] KeeperError),
    #[error("no keeper answers at --keeper {path}")]
    Keeper { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.common.print_capabilities {
        println!("{CAPABILITIES}");
        return ExitCode::SUCCESS;
    }
    match options.action {
        Some(Action::Keep(keeper)) => {
            close_inherited(&[]);
            let kept = vhost_daemon::log::start(&options.common.log_level)
                .map_err(Error::from)
                .and_then(|()| Ok(keeper::run(keeper)?));
            daemon::exit_code("virtiofsd keep", kept)
        }
        None => daemon::exit_code("virtiofsd", run(options)),
    }
}

fn run(options: Options) -> Result<(), Error> {
    // Whoever starts the daemon may have left a way out open.
    close_inherited(options.common.fd.as_slice());
    let syslog = options.syslog;
    let options = options.with_compat().map_err(ConfigError::from)?;
    let level = options.common.log_level.clone();
    if syslog {
        vhost_daemon::log::start_syslog(&level, "virtiofsd")?;
    } else {
        vhost_daemon::log::start(&level)?;
    }
    serve(options.validate()?)
}

/// What needs the host comes first, then the sandbox, then what guests have to do with.
fn serve(config: DaemonConfig) -> Result<(), Error> {
    let open_files = raise_open_files(config.open_files)?;
    let state = open_state(&config)?;
    let keeper = config.keeper.as_deref().map(connect).transpose()?;
    let mut endpoint = config.common.endpoint.bind(config.socket_group)?;
    let mut prepared = Prepared::new(config.common.metrics_socket.as_deref())?;
    let files = [endpoint.take_file(), prepared.take_file()];
    capabilities::require(config.sandbox.required)?;
    let sandbox = Sandbox {
        mode: config.sandbox.mode,
        directory: config.passthrough.shared_directory.clone(),
        read_only: config.passthrough.read_only,
        ids: config.id_maps,
        capabilities: config.sandbox.capabilities,
    };
    let inside = sandbox.enter(files.into_iter().flatten().collect())?;
    make_room_for_descriptors(&inside.descriptors, open_files);
    let directory = config.passthrough.shared_directory.clone();
    let mut passthrough = config.passthrough;
    passthrough.shared_directory = inside.directory;
    let mut file_system = Passthrough::open_with(passthrough, inside.descriptors)?;
    if let Some(state) = &state {
        file_system.remember_in(state, keeper)?;
    }
    let mut server = FsServer::new(file_system);
    if let Some(state) = state {
        server = server.surviving(state)?;
    }
    tracing::info!(directory = %directory.display(), tag = config.tag, queues = config.queues, open_files, "sharing");

    let filters = Arc::new(ThreadFilters::new(config.sandbox.seccomp, CALLS)?);
    let metrics = Arc::new(Metrics::default());
    let daemon = prepared.start(&Arc::new(Registry::of(&metrics)), &filters)?;
    let bound = filters.clone();
    let helpers = Helpers::start(Helpers::THREADS, move || bound.enter(Role::Helper))?;
    let device = FsDevice::new(server, helpers, config.tag, config.queues);
    let device = Arc::new(device);
    let service = Service {
        endpoint,
        once: config.common.once,
        poll: config.common.poll,
        metrics,
    };
    let server = Server::open(&device, service)?.with_filters(filters);
    Ok(server.run(daemon.shutdown())?)
}

fn connect(path: &Path) -> Result<(Keeper, Held), Error> {
    Keeper::connect(path).map_err(|source| Error::Keeper {
        path: path.to_owned(),
        source,
    })
}

fn open_state(config: &DaemonConfig) -> Result<Option<Arc<State>>, StateError> {
    let open = |directory: &PathBuf| State::open(directory, queues(config.queues), QUEUE_SIZE);
    Ok(config
        .state_dir
        .as_ref()
        .map(open)
        .transpose()?
        .map(Arc::new))
}
