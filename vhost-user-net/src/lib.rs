//! vhost-user network device daemon.
//!
//! A frame to the guest: [`backend`] (a tap, passt, a switch) → guest buffers that [`worker`] popped from the
//! receive queue → used ring. A frame from the guest: transmit queue → [`worker`] → [`backend`].
//! Neither is copied here. [`control`] parses the driver's commands, [`station`] carries them
//! out, [`features`] and [`config`] say what the driver sees. [`ports`] holds the devices of the
//! process, [`commands`] what can be asked of them while they run.

pub mod backend;
pub mod capture;
pub mod commands;
pub mod config;
pub mod control;
pub mod device;
pub mod driver;
pub mod features;
pub mod filter;
pub mod header;
pub mod layout;
pub mod metrics;
pub mod offload;
pub mod options;
pub mod ports;
pub mod station;
pub mod sys;
pub mod system_calls;
pub mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use vhost_daemon::control::ControlServer;
use vhost_daemon::daemon::{DaemonError, Prepared, raise_descriptor_limit};
use vhost_daemon::listen::ListenError;
use vhost_daemon::metrics::Registry;
use vhost_daemon::sandbox::seccomp::{SeccompError, ThreadFilters};
use vhost_daemon::sandbox::{Enclosure, Files, SandboxError};

use options::{Config, Options, OptionsError};
use ports::{Common, OpenError, Opened, Ports, StateDir};

/// The daemon cannot run.
#[derive(Debug, Error)]
pub enum NetError {
    /// Wrong options.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A port cannot be opened.
    #[error(transparent)]
    Port(#[from] OpenError),
    /// The control socket.
    #[error("--control cannot be served")]
    Control(#[source] ListenError),
    /// Its thread.
    #[error("no thread for --control")]
    ControlThread(#[source] io::Error),
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

/// Serves network devices as `options` say, until told to stop.
///
/// # Errors
/// When it cannot start.
pub fn run(options: Options) -> Result<(), NetError> {
    let Config {
        shared,
        sandbox,
        ports,
        state_dir,
        control,
    } = options.validate()?;
    let metrics = Arc::new(Registry::default());
    raise_descriptor_limit();
    let prepared = Prepared::new(shared.metrics_socket.as_deref())?;
    let filters = Arc::new(ThreadFilters::new(sandbox.seccomp, system_calls::CALLS)?);
    let common = Common {
        state_dir: state_dir.map(StateDir::new),
        once: shared.once,
        poll: shared.poll,
        metrics: metrics.clone(),
        shutdown: prepared.shutdown().clone(),
        filters: filters.clone(),
    };
    // Bound first: who sees a port's socket finds this one too. Served last: a command finds all ports.
    let server = control.as_deref().map(ControlServer::bind).transpose();
    let server = server.map_err(NetError::Control)?;
    let opened = ports::open(ports, &common)?;
    let enclosure = Enclosure {
        config: sandbox,
        files: files(&opened, [control, shared.metrics_socket]),
    };
    enclosure.enter()?;
    let daemon = prepared.start(&metrics, &filters)?;
    let ports = Ports::serve(opened, &common)?;
    if let Some(server) = &server {
        let started = server.start(ports.clone(), &filters);
        started.map_err(NetError::ControlThread)?;
    }
    let stopped = daemon.shutdown().wait().map_err(DaemonError::Signals);
    ports.close();
    Ok(stopped?)
}

/// What is still done with files once everything is open: sockets' files are removed at the end. Only
/// what has to be connected to again needs more.
fn files(opened: &[Opened], sockets: [Option<PathBuf>; 2]) -> Files {
    if opened.iter().any(Opened::connects) {
        return Files::OnDemand;
    }
    let ports = opened.iter().filter_map(Opened::socket);
    Files::removed(ports.chain(sockets.into_iter().flatten()))
}
