//! `vhost-user-blk`: serves disk images and block devices to virtual machines.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use thiserror::Error;
use vhost_daemon::control::{self, ControlError, ControlServer};
use vhost_daemon::daemon::{self, DaemonError, Prepared, raise_descriptor_limit};
use vhost_daemon::listen::ListenError;
use vhost_daemon::metrics::Registry;
use vhost_daemon::sandbox::seccomp::{SeccompError, ThreadFilters};
use vhost_daemon::sandbox::{Enclosure, Files, SandboxError, close_inherited};
use vhost_user_blk::control::{Command, DiskStats};
use vhost_user_blk::disks::{AddError, Common, Disks, StateDir};
use vhost_user_blk::options::{Action, CAPABILITIES, Config, Options, OptionsError};
use vhost_user_blk::system_calls::CALLS;

#[derive(Debug, Error)]
enum Error {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("--log-level is not a level or filter")]
    LogLevel(#[from] vhost_daemon::log::FilterError),
    #[error(transparent)]
    Disk(#[from] AddError),
    #[error(transparent)]
    Command(#[from] ControlError),
    #[error("the answer cannot be shown")]
    Answer(#[from] serde_json::Error),
    #[error("--control cannot be served")]
    Control(#[source] ListenError),
    #[error("no thread for --control")]
    ControlThread(#[source] std::io::Error),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.common.print_capabilities {
        println!("{CAPABILITIES}");
        return ExitCode::SUCCESS;
    }
    match options.action {
        Some(Action::Ctl { socket, command }) => {
            daemon::exit_code("vhost-user-blk ctl", control(&socket, &command))
        }
        None => daemon::exit_code("vhost-user-blk", run(options)),
    }
}

fn control(socket: &Path, command: &Command) -> Result<(), Error> {
    for disk in control::send::<Vec<DiskStats>>(socket, command)? {
        println!("{}", serde_json::to_string(&disk)?);
    }
    Ok(())
}

fn run(options: Options) -> Result<(), Error> {
    // Whoever starts the daemon may have left a way out open.
    close_inherited(&options.inherited());
    vhost_daemon::log::start(&options.common.log_level)?;
    serve(options.validate()?)
}

/// What is named at the start is open before the daemon is closed in; only then guests are heard.
fn serve(config: Config) -> Result<(), Error> {
    let metrics = Arc::new(Registry::default());
    raise_descriptor_limit();
    let prepared = Prepared::new(config.shared.metrics_socket.as_deref())?;
    let filters = Arc::new(ThreadFilters::new(config.sandbox.seccomp, CALLS)?);
    let disks = Disks::new(Common {
        state_dir: config.state_dir.map(StateDir::new),
        once: config.shared.once,
        poll: config.shared.poll,
        metrics: metrics.clone(),
        shutdown: prepared.shutdown().clone(),
        filters: filters.clone(),
    });
    // Bound first: who sees a disk's socket finds this one too. Served last: a command finds all disks.
    let control = config
        .control
        .map(|path| ControlServer::bind(&path))
        .transpose()
        .map_err(Error::Control)?;
    let opened = disks.open_all(config.disks)?;
    let files = match control {
        Some(_) => Files::OnDemand,
        None => Files::removed(opened.sockets().chain(config.shared.metrics_socket)),
    };
    let enclosure = Enclosure {
        config: config.sandbox,
        files,
    };
    enclosure.enter()?;
    let daemon = prepared.start(&metrics, &filters)?;
    disks.serve_all(opened)?;
    if let Some(control) = &control {
        control
            .start(disks.clone(), &filters)
            .map_err(Error::ControlThread)?;
    }
    let stopped = daemon.shutdown().wait().map_err(DaemonError::Signals);
    disks.close();
    Ok(stopped?)
}
