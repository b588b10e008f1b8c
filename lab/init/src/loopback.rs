//! The machine's only network interface.

use anyhow::{Context, Result};
use ringside_netdev::Interface;

/// Brings it up.
pub(crate) fn set_up() -> Result<()> {
    let loopback = Interface::new("lo").and_then(|loopback| loopback.set_up());
    loopback.context("cannot bring the loopback up")
}
