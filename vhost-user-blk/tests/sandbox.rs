//! How a daemon is closed in, as the kernel tells: what docs/security.md promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use disk::{ALL, Disk, PROGRAM, SOON};
use lab::frontend::blk::status;
use lab::inside::Process;
use lab::view::{assert_documented, view};

const MIB: u64 = 1 << 20;

/// capabilities(7).
const DAC_OVERRIDE: u64 = 1 << 1;

fn us() -> Process {
    Process::of(std::process::id())
}

/// What every daemon keeps and loses, whatever it serves.
fn assert_closed_in(inside: &Process, capabilities: u64) {
    inside.assert_powerless(capabilities);
    for taken in ["net", "ipc"] {
        assert_ne!(inside.namespace(taken), us().namespace(taken), "{taken}");
    }
    for kept in ["mnt", "pid", "user"] {
        assert_eq!(inside.namespace(kept), us().namespace(kept), "{kept}");
    }
    let interfaces = inside.text("net/dev");
    assert_eq!(interfaces.lines().count(), 3, "{interfaces}");
}

#[test]
fn a_disk_is_served_without_capabilities_and_network() {
    lab::need::root().unwrap();
    let disk = Disk::start("blk-inside", MIB);
    let (_front_end, mut blk) = disk.driver(ALL);
    assert_eq!(blk.read(0, 512).unwrap().0, status::OK);
    let inside = Process::serving(&disk.daemon);
    assert_closed_in(&inside, 0);
    assert_ends_clean(disk);
}

/// With a control socket it opens files on demand, also those of others.
#[test]
fn a_daemon_with_a_control_socket_opens_files() {
    lab::need::root().unwrap();
    let others = 65534;
    let (mut disk, control) = with_control("blk-inside-control");
    assert_closed_in(&Process::serving(&disk.daemon), DAC_OVERRIDE);
    let image = disk.scratch.image("second.img", MIB).unwrap();
    std::os::unix::fs::chown(&image, Some(others), Some(others)).unwrap();
    let socket = disk.scratch.join("second.sock");
    let spec = format!("path={},socket={}", image.display(), socket.display());
    let added = Command::new(PROGRAM)
        .arg("ctl")
        .arg(&control)
        .args(["add", &spec])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&added.stderr);
    assert!(added.status.success(), "{errors}");
    disk.socket = socket;
    disk.assert_serves();
    assert_ends_clean(disk);
    assert!(!control.exists());
}

fn with_control(test: &str) -> (Disk, PathBuf) {
    let mut control = None;
    let scratch = lab::scratch::Scratch::new(test).unwrap();
    let image = scratch.image("disk.img", MIB).unwrap();
    let path = scratch.join("control");
    let state = scratch.dir("state").unwrap();
    let disk = Disk::serve(scratch, image, |daemon| {
        let path = control.insert(path);
        let daemon = daemon.arg("--control").arg(path);
        daemon.arg("--state-dir").arg(state)
    });
    (disk, control.unwrap())
}

/// All of it, in words that are kept: docs/sandbox.
#[test]
fn what_it_can_still_do_is_documented() {
    lab::need::root().unwrap();
    let plain = Disk::start("blk-view", MIB);
    let (control, _socket) = with_control("blk-view-control");
    for (name, disk) in [
        ("vhost-user-blk", &plain),
        ("vhost-user-blk-control", &control),
    ] {
        let (_front_end, mut blk) = disk.driver(ALL);
        assert_eq!(blk.read(0, 512).unwrap().0, status::OK);
        let names = [(disk.scratch.path(), "DIRECTORY")];
        let view = view(disk.daemon.serving_pid().unwrap(), &names).unwrap();
        assert_documented(name, &view);
    }
}

/// Each thread's filter comes on top of the main thread's.
#[test]
fn every_thread_that_serves_has_a_list_of_its_own() {
    lab::need::root().unwrap();
    let (disk, _control) = with_control("blk-threads");
    let (_front_end, mut blk) = disk.driver(ALL);
    assert_eq!(blk.read(0, 512).unwrap().0, status::OK);
    let threads = Process::serving(&disk.daemon).threads("Seccomp_filters");
    for (name, filters) in &threads {
        let own_list = match name.as_str() {
            "vhost-user-blk" | "device" | "control" | "vring_worker" => false,
            "session" | "relay-in" | "relay-out" | "signals" | "metrics" | "queue0" => true,
            // A kernel thread of an io_uring: it has its creator's.
            name if name.starts_with("iou-") => continue,
            name => panic!("a thread called {name} that nobody listed"),
        };
        assert_eq!(filters, if own_list { "2" } else { "1" }, "{name}");
    }
    for expected in [
        "session",
        "relay-in",
        "relay-out",
        "signals",
        "metrics",
        "queue0",
    ] {
        let known = threads.iter().any(|(name, _)| name == expected);
        assert!(known, "{expected}: {threads:?}");
    }
}

#[test]
fn descriptors_are_its_images_and_its_sockets() {
    lab::need::root().unwrap();
    let left_open: OwnedFd = fs::File::open("/").unwrap().into();
    let disk = Disk::start_with("blk-descriptors", MIB, |daemon| daemon.keep(left_open));
    let (_front_end, mut blk) = disk.driver(ALL);
    assert_eq!(blk.read(0, 512).unwrap().0, status::OK);
    for (number, target) in Process::serving(&disk.daemon).descriptors() {
        let name = target.to_string_lossy();
        let known = [
            "socket:",
            "anon_inode:[eventfd]",
            "anon_inode:[eventpoll]",
            "anon_inode:[io_uring]",
            "/memfd:",
        ];
        let is_known = known.iter().any(|kind| name.starts_with(kind)) || target == disk.image;
        assert!(is_known, "{number} is {name}");
    }
}

#[test]
fn it_is_as_open_as_asked() {
    lab::need::root().unwrap();
    let with = |options: &[&str]| {
        let disk = Disk::start_with("blk-open", MIB, |daemon| daemon.args(options.iter()));
        // Whoever is served is served from inside.
        disk.assert_serves();
        disk
    };
    let disk = with(&["--sandbox", "none"]);
    let inside = Process::serving(&disk.daemon);
    inside.assert_powerless(0);
    assert_eq!(inside.namespace("net"), us().namespace("net"));
    let disk = with(&["--modcaps=+dac_override"]);
    assert_closed_in(&Process::serving(&disk.daemon), DAC_OVERRIDE);
    let disk = with(&["--seccomp", "none"]);
    assert_eq!(Process::serving(&disk.daemon).status("Seccomp"), "0");
    for action in ["log", "trap"] {
        let disk = with(&["--seccomp", action]);
        assert_eq!(Process::serving(&disk.daemon).status("Seccomp"), "2");
    }
}

fn assert_ends_clean(mut disk: Disk) {
    let exit = disk.daemon.terminate(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(!disk.socket.exists(), "the socket's file is left behind");
    assert!(!disk.scratch.join("metrics.sock").exists());
}
