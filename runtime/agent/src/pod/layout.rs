//! Where a pod's things are in the guest.

use std::path::{Path, PathBuf};

/// libcontainer's state, a directory for each container.
pub(super) const STATE: &str = "/run/ringside/state";

/// A directory for each container: its config.json and what its processes are started with.
const BUNDLES: &str = "/run/ringside/bundles";

/// The pod's /etc/resolv.conf.
pub(super) const RESOLV_CONF: &str = "/run/ringside/resolv.conf";

/// Sockets on which libcontainer hands terminals over: a short path, for unix(7) takes 107 bytes.
pub(super) const CONSOLES: &str = "/run/ringside/tty";

/// The pod's process name space.
pub(super) const POD_PID_NAMESPACE: &str = "/run/ringside/pid";

/// Where cgroup2 is mounted.
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";

/// Directories to be made.
pub(super) const DIRECTORIES: [&str; 3] = [STATE, BUNDLES, CONSOLES];

pub(super) fn state(container: &str) -> PathBuf {
    Path::new(STATE).join(container)
}

pub(super) fn bundle(container: &str) -> PathBuf {
    Path::new(BUNDLES).join(container)
}

/// A container's cgroup, from the hierarchy's root.
pub(super) fn cgroup(container: &str) -> String {
    format!("/pod/{container}")
}

/// The directory of a container's cgroup.
pub(super) fn cgroup_directory(container: &str) -> PathBuf {
    Path::new(CGROUPS).join("pod").join(container)
}
