//! The sandbox of a daemon that opens paths while it runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::process::Command;

use rustix::thread::CapabilitySet;
use vhost_daemon::sandbox::{IdMaps, Mode, Sandbox, SandboxError, View};

#[test]
fn paths_stay_and_the_rest_goes() {
    lab::need::root().unwrap();
    // target/debug/deps/sandbox-0123 -> target/debug/examples/closed_in
    let test = std::env::current_exe().unwrap();
    let example = test.ancestors().nth(2).unwrap().join("examples/closed_in");
    let output = Command::new(example).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = |kind: &str| {
        let here = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        format!("{kind} {}\n", here.display())
    };
    assert!(said.contains(&line("mnt")), "{said}");
    for kind in ["net", "pid", "ipc"] {
        assert!(!said.contains(&line(kind)), "{said}");
    }
    let dac_override = "0000000000000002\n";
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert!(said.contains(&format!("{set}:\t{dac_override}")), "{said}");
    }
    assert!(said.contains("NoNewPrivs:\t1\n"), "{said}");
    assert!(said.contains("files to remove: 0\n"), "{said}");
    let numbers = said
        .lines()
        .find(|line| line.starts_with("NSpid:"))
        .unwrap();
    assert_eq!(numbers.split_whitespace().last(), Some("1"), "{numbers}");
}

/// A fork with several threads would leave locks that nobody opens.
#[test]
fn it_is_entered_before_there_are_threads() {
    lab::need::root().unwrap();
    let other = std::thread::spawn(std::thread::park);
    let sandbox = Sandbox {
        mode: Mode::Namespace,
        view: View::Host,
        ids: IdMaps::default(),
        capabilities: CapabilitySet::empty(),
    };
    let refused = sandbox.enter(Vec::new());
    assert!(
        matches!(refused, Err(SandboxError::Threads(2..))),
        "{refused:?}"
    );
    other.thread().unpark();
    other.join().unwrap();
}
