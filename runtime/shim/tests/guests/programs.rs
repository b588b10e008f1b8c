//! The programs a pod is made of.

use std::process::Command;
use std::sync::OnceLock;

use crate::containerd::SHIM;

const DAEMONS: [&str; 4] = [
    "virtiofsd",
    "vhost-user-net",
    "vhost-user-blk",
    "vhost-user-vsock",
];

/// Builds the daemons and the static agent in the profile of this test, unless
/// `RINGSIDE_TEST_PREBUILT` says that somebody did.
pub(crate) fn build() {
    if std::env::var_os("RINGSIDE_TEST_PREBUILT").is_some() {
        return;
    }
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let daemons = DAEMONS.iter().flat_map(|name| ["-p", *name]);
        cargo("", &daemons.collect::<Vec<_>>());
        let target = [
            "-p",
            "ringside-agent",
            "--target",
            "x86_64-unknown-linux-gnu",
        ];
        cargo("-C target-feature=+crt-static -C strip=debuginfo", &target);
    });
}

fn cargo(flags: &str, arguments: &[&str]) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "-q"]).args(arguments);
    if SHIM.contains("/release/") {
        cargo.arg("--release");
    }
    if !flags.is_empty() {
        cargo.env("RUSTFLAGS", flags);
    }
    let built = cargo.status().unwrap().success();
    assert!(built, "cargo build {arguments:?} failed");
}
