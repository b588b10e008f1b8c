//! How a daemon is closed in, as the kernel tells: what docs/security.md promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod network;

use std::time::{Duration, Instant};

use lab::inside::Process;
use lab::netns::Tap;
use lab::view::{assert_documented, view};
use network::{ALL, Network, SOON};

fn us() -> Process {
    Process::of(std::process::id())
}

/// The tap it has, the tap's network it has not.
#[test]
fn frames_are_all_of_the_network_that_is_left() {
    let mut network = Network::start_multi_queue("net-inside");
    let _guest = network.guest(ALL, 8, 2048);
    let inside = Process::serving(&network.daemon);
    inside.assert_powerless(0);
    for taken in ["net", "ipc"] {
        assert_ne!(inside.namespace(taken), us().namespace(taken), "{taken}");
    }
    let interfaces = inside.text("net/dev");
    assert_eq!(interfaces.lines().count(), 3, "{interfaces}");
    for (number, target) in inside.descriptors() {
        let name = target.to_string_lossy();
        let known = [
            "socket:",
            "anon_inode:[eventfd]",
            "anon_inode:[eventpoll]",
            "anon_inode:[io_uring]",
            "anon_inode:[timerfd]",
            "/memfd:",
            "/dev/net/tun",
        ];
        let is_known = known.iter().any(|kind| name.starts_with(kind));
        assert!(is_known, "{number} is {name}");
    }
    let exit = network.daemon.terminate(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(!network.socket.exists(), "the socket's file is left behind");
}

/// All of it, in words that are kept: docs/sandbox.
#[test]
fn what_it_can_still_do_is_documented() {
    let network = Network::start_multi_queue("net-view");
    let _guest = network.guest(ALL, 8, 2048);
    let view = view(network.daemon.serving_pid().unwrap(), &[]).unwrap();
    assert_documented("vhost-user-net", &view);
}

#[test]
fn every_thread_that_serves_has_a_list_of_its_own() {
    let network = Network::start("net-threads");
    let _guest = network.guest(ALL, 8, 2048);
    const EXPECTED: [&str; 5] = ["session", "signals", "metrics", "queue0", "queue1"];
    let process = Process::serving(&network.daemon);
    let has_its_own = |threads: &[(String, String)], name: &str| {
        threads.iter().any(|it| it.0 == name && it.1 == "2")
    };
    let deadline = Instant::now() + SOON;
    let threads = loop {
        // A queue's thread has its name and list some time after the ring was enabled.
        let threads = process.threads("Seccomp_filters");
        if EXPECTED.iter().all(|name| has_its_own(&threads, name)) {
            break threads;
        }
        assert!(Instant::now() < deadline, "{threads:?}");
        std::thread::sleep(Duration::from_millis(10));
    };
    for (name, filters) in &threads {
        let own_list = match name.as_str() {
            "vhost-user-net" | "device" | "control" | "vring_worker" => false,
            "session" | "relay-in" | "relay-out" | "signals" | "metrics" => true,
            "queue0" | "queue1" => true,
            name if name.starts_with("iou-") => continue,
            name => panic!("a thread called {name} that nobody listed"),
        };
        assert_eq!(filters, if own_list { "2" } else { "1" }, "{name}");
    }
}

#[test]
fn it_is_as_open_as_asked() {
    let with = |options: &[&str]| {
        let mut network = Network::start_with("net-open", &Tap::default(), |daemon| {
            daemon.args(options.iter())
        });
        network.assert_serves();
        network
    };
    let network = with(&["--sandbox", "none"]);
    let inside = Process::serving(&network.daemon);
    inside.assert_powerless(0);
    // The tap's network, which the daemon was started in.
    let interfaces = inside.text("net/dev");
    assert!(interfaces.contains(network::TAP), "{interfaces}");
    let network = with(&["--seccomp", "none"]);
    assert_eq!(Process::serving(&network.daemon).status("Seccomp"), "0");
    for action in ["log", "trap"] {
        let network = with(&["--seccomp", action]);
        assert_eq!(Process::serving(&network.daemon).status("Seccomp"), "2");
    }
}
