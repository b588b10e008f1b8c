//! `virtiofsd`: shares a directory of the host with virtual machines.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use thiserror::Error;
use vhost_daemon::daemon::{self, DaemonError};
use vhost_daemon::metrics::Metrics;
use virtiofsd::device::FsDevice;
use virtiofsd::limits::{LimitError, raise_open_files};
use virtiofsd::options::{CAPABILITIES, ConfigError, DaemonConfig, Options};
use virtiofsd::passthrough::{OpenError, Passthrough};

#[derive(Debug, Error)]
enum Error {
    #[error(transparent)]
    Options(#[from] ConfigError),
    #[error("--log-level: {0}")]
    LogLevel(String),
    #[error(transparent)]
    OpenFiles(#[from] LimitError),
    #[error(transparent)]
    Share(#[from] OpenError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.common.print_capabilities {
        println!("{CAPABILITIES}");
        return ExitCode::SUCCESS;
    }
    daemon::exit_code("virtiofsd", run(options))
}

fn run(options: Options) -> Result<(), Error> {
    vhost_daemon::log::start(&options.common.log_level)
        .map_err(|error| Error::LogLevel(error.to_string()))?;
    let DaemonConfig {
        common,
        passthrough,
        tag,
        queues,
    } = options.validate()?;
    let open_files = raise_open_files()?;
    let directory = passthrough.shared_directory.clone();
    let file_system = Passthrough::open(passthrough)?;
    tracing::info!(directory = %directory.display(), tag, queues, open_files, "sharing");
    let device = Arc::new(FsDevice::new(file_system, tag, queues));
    Ok(daemon::run(&device, common, Arc::new(Metrics::default()))?)
}
