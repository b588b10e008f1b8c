//! Brings the loopback and the one network interface up.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringside_netdev::Interface;
use ringside_protocol::Network;

const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// Configures the loopback, and `network` when there is one.
pub(crate) fn configure_network(network: Option<&Network>) -> Result<()> {
    let loopback = Interface::new("lo").and_then(|loopback| loopback.set_up());
    loopback.context("cannot bring the loopback up")?;
    let Some(network) = network else {
        return Ok(());
    };
    let name = find(&network.mac)?;
    let configure = || {
        let interface = Interface::new(&name)?;
        interface.set_mtu(network.mtu)?;
        interface.set_address(network.address, network.prefix)?;
        interface.set_up()?;
        interface.add_default_route(network.gateway)
    };
    configure().with_context(|| format!("cannot configure network interface {name}"))
}

fn find(mac: &str) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let entries = fs::read_dir("/sys/class/net")
            .into_iter()
            .flatten()
            .flatten();
        let mut matching = entries.filter(|entry| {
            fs::read_to_string(entry.path().join("address"))
                .is_ok_and(|address| address.trim_end() == mac)
        });
        if let Some(entry) = matching.next() {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
        if Instant::now() > deadline {
            bail!("no network interface has the address {mac}");
        }
        thread::sleep(PAUSE);
    }
}
