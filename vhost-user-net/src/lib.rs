//! vhost-user network device daemon.
//!
//! A frame to the guest: [`backend`] (the tap) → guest buffers that [`worker`] popped from the
//! receive queue → used ring. A frame from the guest: transmit queue → [`worker`] → [`backend`].
//! Neither is copied here. [`control`] parses the driver's commands, [`station`] carries them
//! out, [`features`] and [`config`] say what the driver sees.

pub mod backend;
pub mod config;
pub mod control;
pub mod device;
pub mod features;
pub mod header;
pub mod layout;
pub mod metrics;
pub mod options;
pub mod station;
pub mod sys;
pub mod system_calls;
pub mod worker;

use std::sync::Arc;

use thiserror::Error;
use vhost_daemon::daemon::{self, DaemonError};
use vhost_daemon::metrics::Metrics;

use backend::{Port, Tap, TapError};
use device::NetDevice;
use options::{Config, Options, OptionsError};

/// The daemon cannot run.
#[derive(Debug, Error)]
pub enum NetError {
    /// Wrong options.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The tap cannot be used.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Serving is not possible.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

/// Serves a network device as `options` say, until told to stop.
///
/// # Errors
/// When it cannot start.
pub fn run(options: Options) -> Result<(), NetError> {
    let Config {
        common,
        tap,
        pairs,
        mac,
        mtu,
        sandbox,
    } = options.validate()?;
    let tap = Tap::open(tap, pairs, mtu)?;
    tracing::info!(
        tap = tap.name(),
        queue_pairs = pairs,
        offloads = %tap.offloads(),
        mtu = tap.mtu(),
        "tap is open"
    );
    let metrics = Arc::new(Metrics::default());
    let device = Arc::new(NetDevice::new(tap, mac, metrics.clone()));
    daemon::run(&device, common, metrics, sandbox, system_calls::CALLS)?;
    Ok(())
}
