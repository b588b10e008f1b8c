//! Start-up, options, sockets: what can go wrong is said in one sentence.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use disk::{ALL, Disk, PROGRAM, SOON};
use lab::frontend::blk::{Blk, status};
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures};
use lab::process::{Daemon, Exit};
use lab::scratch::Scratch;

fn refused(args: &[&str]) -> Exit {
    let mut daemon = Daemon::builder(PROGRAM).args(args).spawn().unwrap();
    let exit = daemon.wait_exit(SOON).unwrap();
    assert!(!exit.status.success(), "{args:?} was accepted");
    exit
}

fn says(args: &[&str], what: &str) {
    let exit = refused(args);
    assert!(
        exit.stderr.contains(what),
        "{args:?} gave:\n{}",
        exit.stderr
    );
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn wrong_options_are_refused_in_one_sentence() {
    let scratch = Scratch::new("blk-options").unwrap();
    let image = scratch.image("disk.img", 1 << 20).unwrap();
    let small = scratch.image("small.img", 100).unwrap();
    let socket = scratch.join("s.sock");
    let (image, small, socket, dir) = (
        text(&image),
        text(&small),
        text(&socket),
        text(scratch.path()),
    );
    says(
        &[],
        "give --blk-file PATH and --socket-path PATH, or --disk",
    );
    says(&["--socket-path", socket], "--blk-file PATH");
    says(&["--disk", "path=x"], "socket=PATH");
    says(
        &["--disk", "path=x,fd=50", "--disk", "path=y,fd=50"],
        "fd=50 is given to two disks",
    );
    says(&["--disk", "paht=x"], "unknown field `paht`");
    says(
        &["--disk", "path=x,socket=y", "--direct"],
        "cannot be used with",
    );
    says(&["--blk-file", image], "give --socket-path PATH or --fd FD");
    says(
        &["--blk-file", image, "--fd", "77"],
        "--fd 77 is not an open descriptor",
    );
    says(
        &["--blk-file", "/no/such", "--socket-path", socket],
        "cannot open disk image /no/such: No such file",
    );
    says(
        &["--blk-file", dir, "--socket-path", socket],
        "is neither a regular file nor a block device",
    );
    says(
        &["--blk-file", small, "--socket-path", socket],
        "smaller than one sector",
    );
    says(
        &["--blk-file", image, "--socket-path", "/no/such/dir/s"],
        "cannot listen on socket /no/such/dir/s",
    );
    says(
        &[
            "--blk-file",
            image,
            "--socket-path",
            socket,
            "--queues",
            "0",
        ],
        "0 queues: their number is between 1 and 64",
    );
    says(
        &[
            "--blk-file",
            image,
            "--socket-path",
            socket,
            "--block-size",
            "513",
        ],
        "512 or 4096",
    );
    says(
        &[
            "--blk-file",
            image,
            "--socket-path",
            socket,
            "--serial",
            &"x".repeat(21),
        ],
        "longer than 20 bytes",
    );
    says(
        &[
            "--blk-file",
            image,
            "--socket-path",
            socket,
            "--no-such-option",
        ],
        "unexpected argument",
    );
    says(
        &["--blk-file", image, "--socket-path", image],
        "exists and is not a socket",
    );
}

#[test]
fn an_image_without_permission_is_named() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    lab::need::root().unwrap();
    let scratch = Scratch::new("blk-permission").unwrap();
    let image = scratch.image("disk.img", 1 << 20).unwrap();
    std::fs::set_permissions(&image, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o777)).unwrap();
    // The build directory may be closed to others: run a copy.
    let program = scratch.join("vhost-user-blk");
    std::fs::copy(PROGRAM, &program).unwrap();
    let output = std::process::Command::new(&program)
        .arg("--blk-file")
        .arg(&image)
        .arg("--socket-path")
        .arg(scratch.join("s"))
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        stderr.contains("cannot open disk image") && stderr.contains("Permission denied"),
        "{stderr}"
    );
}

#[test]
fn a_socket_or_image_in_use_is_refused() {
    let disk = Disk::start("blk-in-use", 1 << 20);
    let other = disk.scratch.image("other.img", 1 << 20).unwrap();
    says(
        &[
            "--blk-file",
            text(&other),
            "--socket-path",
            text(&disk.socket),
        ],
        "is in use by another process",
    );
    let socket = disk.scratch.join("other.sock");
    says(
        &[
            "--blk-file",
            text(&disk.image),
            "--socket-path",
            text(&socket),
        ],
        "is in use by another process",
    );
    disk.assert_serves();
}

#[test]
fn a_killed_daemons_socket_is_taken_over() {
    let mut disk = Disk::start("blk-takeover", 1 << 20);
    disk.daemon.kill().unwrap();
    assert!(disk.socket.exists());
    let builder = Daemon::builder(PROGRAM)
        .arg("--socket-path")
        .arg(&disk.socket);
    disk.daemon = builder
        .arg("--blk-file")
        .arg(&disk.image)
        .spawn_listening(&disk.socket, SOON)
        .unwrap();
    disk.assert_serves();
    let exit = disk.daemon.terminate(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(!disk.socket.exists(), "the socket's file is left behind");
}

#[test]
fn capabilities_are_printed_without_other_options() {
    let mut daemon = Daemon::builder(PROGRAM)
        .arg("--print-capabilities")
        .spawn()
        .unwrap();
    assert!(daemon.wait_exit(SOON).unwrap().status.success());
    assert!(
        daemon.stdout().contains("\"type\": \"block\""),
        "{}",
        daemon.stdout()
    );
}

#[test]
fn one_front_end_after_another_is_served() {
    let mut disk = Disk::start("blk-reconnect", 1 << 20);
    for round in 0..20_u8 {
        let (_front_end, mut blk) = disk.driver(ALL);
        assert_eq!(blk.write(1, &[round; 512]).unwrap(), status::OK);
        assert_eq!(blk.read(1, 512).unwrap(), (status::OK, vec![round; 512]));
    }
    assert!(disk.daemon.is_running());
}

#[test]
fn connections_leave_no_descriptor_and_no_thread_behind() {
    let disk = Disk::start("blk-leak", 1 << 20);
    let count = |what: &str| {
        std::fs::read_dir(format!("/proc/{}/{what}", disk.daemon.pid()))
            .unwrap()
            .count()
    };
    // The metrics socket answers when the daemon is done with the connection before.
    let settled = || {
        disk.assert_serves();
        std::thread::sleep(Duration::from_millis(200));
        (count("fd"), count("task"))
    };
    let before = settled();
    for _ in 0..100 {
        disk.assert_serves();
    }
    assert_eq!(settled(), before);
}

#[test]
fn a_look_at_the_socket_is_no_front_end() {
    let mut disk = Disk::start_with("blk-look", 1 << 20, |d| d.arg("--once"));
    for _ in 0..3 {
        drop(UnixStream::connect(&disk.socket).unwrap());
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(disk.daemon.is_running());
    disk.assert_serves();
    assert!(disk.daemon.wait_exit(SOON).unwrap().status.success());
}

#[test]
fn once_means_one_front_end() {
    let mut disk = Disk::start_with("blk-once", 1 << 20, |d| d.arg("--once"));
    disk.assert_serves();
    let exit = disk.daemon.wait_exit(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
}

#[test]
fn an_inherited_listening_socket_is_served() {
    let scratch = Scratch::new("blk-fd").unwrap();
    let image = scratch.image("disk.img", 1 << 20).unwrap();
    let socket = scratch.join("s.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let builder = Daemon::builder(PROGRAM).arg("--blk-file").arg(&image);
    let _daemon = builder.inherit("--fd", listener.into()).spawn().unwrap();
    for _ in 0..2 {
        read_first_sector(FrontEnd::connect(&socket, SOON).unwrap());
    }
}

#[test]
fn an_inherited_connection_is_served_and_ends_the_daemon() {
    let scratch = Scratch::new("blk-connected").unwrap();
    let image = scratch.image("disk.img", 1 << 20).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let builder = Daemon::builder(PROGRAM).arg("--blk-file").arg(&image);
    let mut daemon = builder.inherit("--fd", theirs.into()).spawn().unwrap();
    read_first_sector(FrontEnd::from_stream(ours).unwrap());
    let exit = daemon.wait_exit(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
}

fn read_first_sector(mut front_end: FrontEnd) {
    let memory = GuestMemory::with_size(8 << 20).unwrap();
    front_end
        .handshake(ALL, ProtocolFeatures::CONFIG | ProtocolFeatures::MQ)
        .unwrap();
    front_end.set_mem_table(&memory).unwrap();
    let mut blk = Blk::new(front_end.set_up_queue(0, 64).unwrap());
    assert_eq!(blk.read(0, 512).unwrap().0, status::OK);
}

#[test]
fn signals_end_it_cleanly_with_a_front_end_attached() {
    let mut disk = Disk::start("blk-signal", 1 << 20);
    let (_front_end, mut blk) = disk.driver(ALL);
    assert_eq!(blk.read(0, 512).unwrap().0, status::OK);
    let exit = disk.daemon.terminate(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(!disk.socket.exists());
}

#[test]
fn idle_it_sleeps() {
    let disk = Disk::start("blk-idle", 1 << 20);
    let (_front_end, mut blk) = disk.driver(ALL);
    for _ in 0..100 {
        assert_eq!(blk.read(0, 512).unwrap().0, status::OK);
    }
    // An idle queue must stop polling: its sleeping threads get no CPU time at all. This is not a
    // timing: a spinning thread would collect a whole second.
    std::thread::sleep(Duration::from_millis(100));
    let before = disk.daemon.cpu_ticks().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        disk.daemon.cpu_ticks().unwrap() - before <= 5,
        "an idle daemon burns CPU"
    );
}

/// io_urings are locked memory, and the usual soft limit does for a few guests only.
#[test]
fn as_much_memory_is_locked_as_may_be() {
    let scratch = Scratch::new("blk-memlock").unwrap();
    let image = scratch.image("disk.img", 1 << 20).unwrap();
    let socket = scratch.join("s.sock");
    let daemon = Daemon::builder(lab::need::program("prlimit").unwrap())
        .args(["--memlock=65536:", PROGRAM, "--blk-file", text(&image)])
        .args(["--socket-path", text(&socket)])
        .spawn_listening(&socket, SOON)
        .unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let line = limits
        .lines()
        .find(|it| it.starts_with("Max locked memory"));
    let words: Vec<_> = line.unwrap().split_whitespace().collect();
    // Soft and hard.
    assert_eq!(words[3], words[4], "{line:?}");
    assert_ne!(words[3], "65536", "{line:?}");
}
