//! The programs a pod is made of.

use std::path::Path;

use lab::process::binary;

use crate::containerd::SHIM;

const DAEMONS: [&str; 4] = [
    "virtiofsd",
    "vhost-user-net",
    "vhost-user-blk",
    "vhost-user-vsock",
];

/// Fails with one sentence if something is not built: the workspace's tests build the daemons, `make agent` the
/// agent.
pub(crate) fn need() {
    for daemon in DAEMONS {
        binary(daemon).unwrap();
    }
    let profile = Path::new(SHIM).parent().unwrap();
    let agent = profile
        .with_file_name("x86_64-unknown-linux-gnu")
        .join(profile.file_name().unwrap())
        .join("ringside-agent");
    assert!(
        agent.is_file(),
        "{} is not built: run `make agent`",
        agent.display()
    );
}
