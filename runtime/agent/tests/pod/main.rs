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

#[test]
fn a_pods_guest_does_what_its_host_asks() {
    let mut pod = Pod::start("agent", checks::sandbox);
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
    let hello = pod
        .guest
        .agent
        .hello(pod::patient(), &Default::default())
        .unwrap();
    println!(
        "the agent's memory: {} anonymous, {} proportional",
        hello.agent_anonymous_bytes, hello.agent_pss_bytes
    );
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
    assert!(hello.agent_anonymous_bytes <= MOST_ANONYMOUS, "{hello}");
}
