//! `vhost-user-blk`: serves disk images and block devices to virtual machines.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use thiserror::Error;
use vhost_daemon::daemon::{self, Daemon, DaemonError};
use vhost_daemon::listen::ListenError;
use vhost_daemon::metrics::Registry;
use vhost_user_blk::control::{self, Command, ControlError, ControlServer};
use vhost_user_blk::disks::{AddError, Common, Disks};
use vhost_user_blk::options::{Action, CAPABILITIES, Config, Options, OptionsError};

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
    for disk in control::send(socket, command)? {
        println!("{}", serde_json::to_string(&disk)?);
    }
    Ok(())
}

fn run(options: Options) -> Result<(), Error> {
    vhost_daemon::log::start(&options.common.log_level)?;
    let Config {
        shared,
        disks: configs,
        control,
        state_dir,
    } = options.validate()?;
    let metrics = Arc::new(Registry::default());
    let daemon = Daemon::start(shared.metrics_socket.as_deref(), &metrics)?;
    let disks = Disks::new(Common {
        state_dir,
        once: shared.once,
        poll: shared.poll,
        metrics,
        shutdown: daemon.shutdown().clone(),
    });
    // Bound first: who sees a disk's socket finds this one too. Served last: a command finds all disks.
    let control = control
        .map(|path| ControlServer::bind(&path))
        .transpose()
        .map_err(Error::Control)?;
    for config in configs {
        disks.add(config)?;
    }
    if let Some(control) = &control {
        control.start(disks.clone()).map_err(Error::ControlThread)?;
    }
    let stopped = daemon.shutdown().wait().map_err(DaemonError::Signals);
    disks.close();
    Ok(stopped?)
}
