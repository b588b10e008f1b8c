//! What the agent is asked to make of the guest before the first container.

use std::time::{SystemTime, UNIX_EPOCH};

use ringside_protocol::agent::{NetworkConfig, StartSandboxRequest, Storage, storage};

use super::start::Start;
use crate::network::PodNetwork;
use crate::share::{GUEST_DIRECTORY, TAG};
use crate::spec::GUEST_SHM;

impl Start {
    pub(super) fn sandbox(&self) -> StartSandboxRequest {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut storages = vec![shared_memory()];
        if self.share.is_some() {
            storages.insert(0, shared_directory());
        }
        storages.extend(self.config.storages.iter().cloned());
        StartSandboxRequest {
            hostname: self.config.hostname.clone(),
            network: self.network_config().into(),
            storages,
            sysctls: self.config.sysctls.clone().into_iter().collect(),
            shared_pid_namespace: true,
            realtime_ns: now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(0)),
            ..StartSandboxRequest::default()
        }
    }

    /// All interfaces: those of the namespace, and the owner's.
    fn network_config(&self) -> Option<NetworkConfig> {
        let Some(tap) = self.tap.clone() else {
            return self.network.as_ref().map(PodNetwork::config);
        };
        let mut all = self
            .network
            .as_ref()
            .map(PodNetwork::config)
            .unwrap_or_default();
        all.interfaces.extend(tap.interfaces);
        all.routes.extend(tap.routes);
        Some(all)
    }
}

fn shared_directory() -> Storage {
    Storage {
        source: Some(storage::Source::Virtiofs(TAG.to_owned())),
        mount_point: GUEST_DIRECTORY.to_owned(),
        ..Storage::default()
    }
}

/// What the pod's containers have together as /dev/shm.
fn shared_memory() -> Storage {
    Storage {
        source: Some(storage::Source::Tmpfs(true)),
        options: ["nosuid", "nodev", "noexec", "mode=1777", "size=65536k"]
            .map(str::to_owned)
            .to_vec(),
        mount_point: GUEST_SHM.to_owned(),
        ..Storage::default()
    }
}
