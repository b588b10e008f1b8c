//! The pod's interfaces, as the host's requests describe them.

use anyhow::Context;
use ringside_netdev::Interface as Device;
use ringside_protocol::agent::NetworkConfig;

use super::error::Result;

/// The loopback, and all that is configured.
pub(super) fn start(config: &NetworkConfig) -> Result<()> {
    Device::new("lo")
        .and_then(|loopback| loopback.set_up())
        .context("cannot bring the loopback up")?;
    configure(config)
}

/// Interfaces first, then what needs them.
pub(super) fn configure(_config: &NetworkConfig) -> Result<()> {
    Ok(())
}
