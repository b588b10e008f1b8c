//! The pod's network: the interfaces that CNI left in a namespace, wired to daemons.

use std::fs;
use std::path::Path;

use ringside_podnet::{PodNamespace, Wired, Wiring};
use ringside_protocol::agent::{Interface, Neighbour, NetworkConfig, Route};
use tokio::process::Command;

use crate::PodError;
use crate::daemons::serve_metrics;
use crate::directory::PodDirectory;
use crate::hypervisor::{NetworkBackend, NetworkDevice};
use crate::parts::{Parts, Role};
use crate::programs;

/// Pairs of queues of an interface.
const QUEUE_PAIRS: u8 = 1;

/// File of the pod's directory that names the namespace, for who cleans up.
const NAMESPACE_FILE: &str = "netns";

/// A wired network. Dropping it takes taps and redirections away.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    wiring: Wiring,
    pub(crate) devices: Vec<NetworkDevice>,
}

impl PodNetwork {
    /// Makes taps for the interfaces of the namespace at `path` and starts a daemon for each.
    pub(crate) fn start(
        parts: &Parts,
        directory: &PodDirectory,
        path: &Path,
    ) -> Result<Self, PodError> {
        let namespace = PodNamespace::open(path)?;
        let file = directory.file(NAMESPACE_FILE);
        fs::write(&file, path.as_os_str().as_encoded_bytes())
            .map_err(PodError::file("write", &file))?;
        let wiring = namespace.wire(QUEUE_PAIRS.into())?;
        let mut devices = Vec::new();
        for (index, wired) in wiring.wired().iter().enumerate() {
            devices.push(start_daemon(parts, directory, path, index, wired)?);
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

fn start_daemon(
    parts: &Parts,
    directory: &PodDirectory,
    namespace: &Path,
    index: usize,
    wired: &Wired,
) -> Result<NetworkDevice, PodError> {
    let socket = directory.socket(&format!("net{index}.sock"))?;
    let mac = wired.interface.mac.to_string();
    let mut command = Command::new(programs::NETWORK.find()?);
    command.arg("--socket-path").arg(&socket);
    command.arg("--tap").arg(&wired.tap);
    command.arg("--netns").arg(namespace);
    command.args(["--mac", &mac]);
    command.args(["--mtu", &wired.interface.mtu.to_string()]);
    let part = format!("vhost-user-net{index}");
    serve_metrics(&mut command, directory, &part)?;
    parts.start(&part, command, &[], Role::Daemon)?;
    Ok(NetworkDevice {
        backend: NetworkBackend::VhostUser(socket),
        mac,
        queue_pairs: QUEUE_PAIRS,
    })
}

/// Takes away what a killed owner of this pod left in its namespace.
pub(crate) fn remove_abandoned(directory: &PodDirectory) -> Result<(), PodError> {
    use std::os::unix::ffi::OsStringExt;
    let Ok(path) = fs::read(directory.file(NAMESPACE_FILE)) else {
        return Ok(());
    };
    let path = Path::new(&std::ffi::OsString::from_vec(path)).to_owned();
    match PodNamespace::open(&path) {
        Ok(namespace) => Ok(namespace.remove()?),
        // It went with all that was in it.
        Err(_) if !path.exists() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
