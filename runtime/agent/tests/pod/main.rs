//! The agent in a guest of its own, emulated by QEMU, over virtiofs and vsock: a host's view.
//!
//! A boot costs seconds, so one guest takes all checks, one after another; each says for itself what failed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: what fails is a failed check"
)]

mod checks;
mod guest;
mod pod;
mod spec;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use ringside_protocol::agent::Empty;
use ttrpc::context::with_duration;

use self::pod::Pod;

/// The documents' figure for an idle agent's anonymous memory, in bytes.
const MOST_ANONYMOUS: u64 = 1_100_000;

/// What all the work below may leave behind of it: an allocator gives back only whole pages.
const MOST_LEFT: u64 = 600_000;

#[test]
fn a_pods_guest_does_what_its_host_asks() {
    let mut pod = Pod::start("agent", checks::sandbox);
    let idle = pod.memory("idle");
    let mut failed = Vec::new();
    let only = std::env::var("ONLY").unwrap_or_default();
    for (name, check) in checks::ALL.iter().filter(|(name, _)| name.contains(&only)) {
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&mut pod)));
        println!("{name}: {:?}", start.elapsed());
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    let after = pod.memory("after the work");
    // The answer may be lost: the machine is off.
    let _ = pod
        .guest
        .agent
        .shutdown(with_duration(Duration::from_secs(2)), &Empty::new());
    let end = pod.guest.hypervisor().wait_exit(Duration::from_secs(20));
    assert!(
        end.is_ok(),
        "the guest did not switch off: {}",
        pod.guest.console()
    );
    println!("console: {}", pod.guest.console());
    assert!(failed.is_empty(), "failed: {failed:?}");
    assert!(idle <= MOST_ANONYMOUS, "{idle}");
    assert!(after <= idle + MOST_LEFT, "{after} after {idle}");
}
