//! The pod's network: the interfaces that CNI left in a namespace, wired to daemons.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ringside_podnet::{PodNamespace, Wiring};
use ringside_protocol::agent::{Interface, Neighbour, NetworkConfig, Route};

use crate::PodError;
use crate::daemons::Daemons;
use crate::directory::PodDirectory;
use crate::hypervisor::{NetworkBackend, NetworkDevice};
use crate::proc::boot_id;

/// File of the pod's directory that names the namespace, for who cleans up: the boot's id on a line, then
/// the path.
const NAMESPACE_FILE: &str = "netns";

/// A wired network. Dropping it takes taps and redirections away.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    wiring: Wiring,
    pub(crate) devices: Vec<NetworkDevice>,
}

impl PodNetwork {
    /// Makes taps for the interfaces of the namespace at `path` and starts a daemon for each.
    pub(crate) fn start(daemons: Daemons<'_>, path: &Path) -> Result<Self, PodError> {
        let namespace = PodNamespace::open(path)?;
        let file = daemons.directory.file(NAMESPACE_FILE);
        let mut text = format!("{}\n", boot_id().unwrap_or_default()).into_bytes();
        text.extend(path.as_os_str().as_encoded_bytes());
        fs::write(&file, text).map_err(PodError::file("write", &file))?;
        let pairs = daemons.config.network.queue_pairs.get();
        let wiring = namespace.wire(pairs)?;
        let mut devices = Vec::new();
        for (index, wired) in wiring.wired().iter().enumerate() {
            let (mac, mtu) = (wired.interface.mac.to_string(), wired.interface.mtu);
            let socket = daemons.start_network(index, path, &wired.tap, &mac, mtu)?;
            devices.push(NetworkDevice {
                backend: NetworkBackend::VhostUser(socket),
                mac,
                // The configuration allows 31.
                queue_pairs: u8::try_from(pairs).unwrap_or(1),
            });
        }
        Ok(Self { wiring, devices })
    }

    /// What the agent is told.
    pub(crate) fn config(&self) -> NetworkConfig {
        let network = self.wiring.network();
        let interfaces = network.interfaces.iter().map(|it| Interface {
            mac: it.mac.to_string(),
            name: it.name.clone(),
            mtu: it.mtu,
            addresses: it.addresses.iter().map(ToString::to_string).collect(),
            ..Interface::default()
        });
        let neighbours = network.neighbours.iter().map(|it| Neighbour {
            interface: it.interface.clone(),
            address: it.address.to_string(),
            mac: it.mac.to_string(),
            ..Neighbour::default()
        });
        NetworkConfig {
            interfaces: interfaces.collect(),
            routes: network.routes.iter().map(route).collect(),
            neighbours: neighbours.collect(),
            ..NetworkConfig::default()
        }
    }
}

fn route(route: &ringside_podnet::Route) -> Route {
    let destination = match (route.destination, route.ipv6) {
        (Some(prefix), _) => prefix.to_string(),
        (None, true) => "::/0".to_owned(),
        (None, false) => "default".to_owned(),
    };
    let text =
        |address: Option<std::net::IpAddr>| address.map(|it| it.to_string()).unwrap_or_default();
    Route {
        destination,
        gateway: text(route.gateway),
        interface: route.interface.clone(),
        source: text(route.source),
        scope: route.scope.into(),
        metric: route.metric,
        on_link: route.on_link,
        ..Route::default()
    }
}

/// The namespace's path, if it was made since the machine was started.
fn of_this_boot(text: &[u8]) -> Option<&Path> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let (boot, path) = (&text[..end], &text[end + 1..]);
    let is_now = boot_id().is_some_and(|id| id.as_bytes() == boot);
    is_now.then(|| Path::new(OsStr::from_bytes(path)))
}

/// Takes away what a killed owner of this pod left in its namespace.
pub(crate) fn remove_abandoned(directory: &PodDirectory) -> Result<(), PodError> {
    let Ok(text) = fs::read(directory.file(NAMESPACE_FILE)) else {
        return Ok(());
    };
    let Some(path) = of_this_boot(&text) else {
        // A namespace of that name is another pod's by now.
        return Ok(());
    };
    match PodNamespace::open(path) {
        Ok(namespace) => Ok(namespace.remove()?),
        // It went with all that was in it.
        Err(_) if !path.exists() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_of_another_boot_are_left_alone() {
        let now = format!("{}\n/run/netns/a\nb", boot_id().unwrap());
        assert_eq!(
            of_this_boot(now.as_bytes()),
            Some(Path::new("/run/netns/a\nb"))
        );
        for text in ["", "/run/netns/a", "3b1c2f0e\n/run/netns/a"] {
            assert_eq!(of_this_boot(text.as_bytes()), None, "{text}");
        }
    }
}
