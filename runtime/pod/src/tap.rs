//! A guest's interface on a tap that the pod's owner made.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use ringside_protocol::agent::{Interface, NetworkConfig, Route};

use crate::PodError;
use crate::daemons::Daemons;
use crate::hypervisor::{NetworkBackend, NetworkDevice};
use crate::parts::Role;
use crate::programs;

/// One interface, `eth0` in the guest.
#[derive(Debug, Clone)]
pub struct TapNetwork {
    /// The tap's queues, one for each pair of the device, with virtio-net headers.
    pub queues: Arc<Vec<OwnedFd>>,
    /// The guest's hardware address.
    pub mac: String,
    /// Largest packet, in bytes.
    pub mtu: u16,
    /// The guest's address with its prefix: "10.0.2.2/24".
    pub address: String,
    /// The default route.
    pub gateway: String,
    /// Whether the hypervisor serves the tap instead of `vhost-user-net`, to compare: QEMU can.
    pub by_hypervisor: bool,
}

const INTERFACE: &str = "eth0";

impl TapNetwork {
    pub(crate) fn config(&self) -> NetworkConfig {
        NetworkConfig {
            interfaces: vec![Interface {
                mac: self.mac.clone(),
                name: INTERFACE.to_owned(),
                mtu: self.mtu.into(),
                addresses: vec![self.address.clone()],
                ..Interface::default()
            }],
            routes: vec![Route {
                destination: "default".to_owned(),
                gateway: self.gateway.clone(),
                interface: INTERFACE.to_owned(),
                ..Route::default()
            }],
            ..NetworkConfig::default()
        }
    }

    /// Starts its daemon.
    pub(crate) fn start(self, daemons: Daemons<'_>) -> Result<NetworkDevice, PodError> {
        let queue_pairs = u8::try_from(self.queues.len()).unwrap_or(u8::MAX);
        let backend = if self.by_hypervisor {
            let queues: std::io::Result<_> = self.queues.iter().map(OwnedFd::try_clone).collect();
            NetworkBackend::Tap(queues.map_err(|source| PodError::Start {
                part: "the network".to_owned(),
                source,
            })?)
        } else {
            let fds: Vec<_> = self
                .queues
                .iter()
                .map(|it| it.as_raw_fd().to_string())
                .collect();
            let program = daemons.config.programs.vhost_user_net.as_deref();
            let (mut command, socket) =
                daemons.daemon(programs::NETWORK, program, "net", ("vhost-user-net", "net"))?;
            command.args(["--tap-fd", &fds.join(",")]);
            command.args(["--queue-pairs", &queue_pairs.to_string()]);
            command.args(["--mac", &self.mac, "--mtu", &self.mtu.to_string()]);
            let inherited: Vec<_> = self.queues.iter().map(AsFd::as_fd).collect();
            // Not started again: the tap's descriptors go with the owner's.
            daemons
                .parts
                .start("vhost-user-net", command, &inherited, Role::Daemon)?;
            NetworkBackend::VhostUser(socket)
        };
        Ok(NetworkDevice {
            backend,
            mac: self.mac,
            queue_pairs,
        })
    }
}
