//! `ringside features` (features.md of the OCI runtime specification): what a container can have.

use serde_json::{Value, json};

/// The specification's versions: what came after 1.0.2 and is an error elsewhere is passed over.
const VERSIONS: [&str; 2] = ["1.0.0", "1.2.0"];

pub(super) fn features() -> Value {
    let [least, most] = VERSIONS;
    json!({
        "ociVersionMin": least,
        "ociVersionMax": most,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "cgroup": {"v1": false, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": {"enabled": true},
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
        },
        "annotations": {
            "io.ringside.version": env!("CARGO_PKG_VERSION"),
            // Engines ask before they offer it.
            "org.opencontainers.runc.checkpoint.enabled": "false",
        },
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_said_is_what_the_specification_has() {
        let features: oci_spec::runtime::Features =
            serde_json::from_value(super::features()).unwrap();
        let linux = features.linux().as_ref().unwrap();
        let cgroup = linux.cgroup().as_ref().unwrap();
        assert_eq!((*cgroup.v1(), *cgroup.v2()), (Some(false), Some(true)));
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 7);
    }
}
