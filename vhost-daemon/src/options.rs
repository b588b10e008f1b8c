//! Options that all daemons share, after QEMU's "vhost-user backend program conventions"
//! (docs/interop/vhost-user.rst in QEMU).

use std::path::PathBuf;

use clap::Args;
use thiserror::Error;

use crate::listen::Endpoint;
use crate::sys::adopt_fd;
use crate::worker::PollPolicy;

/// The options as typed.
#[derive(Args, Clone, Debug)]
pub struct CommonOptions {
    /// Unix socket to listen on for front ends, one after another
    #[arg(long, value_name = "PATH", conflicts_with = "fd")]
    pub socket_path: Option<PathBuf>,

    /// The front end listens on --socket-path: connect to it, again whenever it goes
    #[arg(long, requires = "socket_path")]
    pub client: bool,

    /// Inherited socket to use instead: listening, or connected to a front end
    #[arg(long, value_name = "FD")]
    pub fd: Option<i32>,

    /// Print what this program can do as JSON and exit
    #[arg(long)]
    pub print_capabilities: bool,

    /// Exit when the first front end disconnects
    #[arg(long)]
    pub once: bool,

    /// Unix socket that answers each connection with the metrics as Prometheus text
    #[arg(long, value_name = "PATH")]
    pub metrics_socket: Option<PathBuf>,

    /// How long a queue's thread polls before it sleeps: auto (:PERCENT: and polls in vain no more than
    /// so much of the time), or microseconds (0: never); auto by default, 0 in virtiofsd
    #[arg(long, value_name = "auto[:PERCENT]|US")]
    pub poll_us: Option<PollPolicy>,

    /// What to log: error, warn, info, debug, trace, or a filter such as vhost_daemon=debug,info
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}

/// The options as validated.
#[derive(Debug)]
pub struct CommonConfig {
    /// Where front ends come from.
    pub endpoint: Endpoint,
    /// Whether to exit after the first front end.
    pub once: bool,
    /// Where to serve metrics.
    pub metrics_socket: Option<PathBuf>,
    /// Polling of the queues' threads.
    pub poll: PollPolicy,
}

/// What is left of the common options of a daemon whose devices bring their own sockets.
#[derive(Clone, Debug)]
pub struct SharedConfig {
    /// Whether to exit after the first front end.
    pub once: bool,
    /// Where to serve metrics.
    pub metrics_socket: Option<PathBuf>,
    /// Polling of the queues' threads.
    pub poll: PollPolicy,
}

/// Options that cannot be used.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// Neither `--socket-path` nor `--fd`.
    #[error("give --socket-path PATH or --fd FD")]
    NoEndpoint,
    /// `--fd` names no usable descriptor.
    #[error("--fd {fd} is not an open descriptor that was handed down")]
    BadFd {
        /// The number given.
        fd: i32,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl CommonOptions {
    /// Checks the options and takes over inherited descriptors.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(self) -> Result<CommonConfig, OptionsError> {
        let (endpoint, shared) = self.validate_optional_endpoint()?;
        Ok(CommonConfig {
            endpoint: endpoint.ok_or(OptionsError::NoEndpoint)?,
            once: shared.once,
            metrics_socket: shared.metrics_socket,
            poll: shared.poll,
        })
    }

    /// As [`validate`](Self::validate), for a daemon that can do without `--socket-path` and `--fd`.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate_optional_endpoint(
        self,
    ) -> Result<(Option<Endpoint>, SharedConfig), OptionsError> {
        let endpoint = match (self.socket_path, self.fd) {
            (Some(path), None) if self.client => Some(Endpoint::FrontEnd(path)),
            (Some(path), None) => Some(Endpoint::Path(path)),
            (_, Some(fd)) => Some(inherited(fd)?),
            (None, None) => None,
        };
        let shared = SharedConfig {
            once: self.once,
            metrics_socket: self.metrics_socket,
            poll: self.poll_us.unwrap_or(PollPolicy::Auto),
        };
        Ok((endpoint, shared))
    }
}

/// The endpoint that `--fd` names.
///
/// # Errors
/// [`OptionsError::BadFd`].
pub fn inherited(fd: i32) -> Result<Endpoint, OptionsError> {
    adopt_fd(fd)
        .map(Endpoint::Inherited)
        .map_err(|source| OptionsError::BadFd { fd, source })
}
