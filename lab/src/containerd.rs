//! A containerd of a test's or a measurement's own.

use std::path::Path;

/// The configuration of one that has everything in `folder`: it listens on `sock` there, and serves no CRI.
pub fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{folder}/sock"
[ttrpc]
address = "{folder}/sock.ttrpc"
"#
    )
}
