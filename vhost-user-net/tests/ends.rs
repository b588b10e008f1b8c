//! However a daemon ends, nothing of it is left: no tap that it made, no process, no network namespace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::frontend::net::Transmit;
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::netns::NetNamespace;
use lab::process::Daemon;
use lab::scratch::Scratch;
use network::{ALL, PROGRAM, SOON, packet};
use rustix::process::Signal;

const TAP: &str = "ends-tap";

/// A daemon that made its tap in a namespace where nobody else is, with a front end that has sent.
struct Running {
    daemon: Daemon,
    front_end: FrontEnd,
    namespace: NetNamespace,
    scratch: Scratch,
}

impl Running {
    fn start(test: &str, further: &[&str]) -> Self {
        let scratch = Scratch::new(test).unwrap();
        let namespace = NetNamespace::new().unwrap();
        let socket = scratch.join("net.sock");
        let builder = Daemon::builder(PROGRAM)
            .args(["--tap", TAP, "--queue-pairs", "2", "--socket-path"])
            .arg(&socket)
            .args(further);
        let mut daemon = namespace.spawn(builder).unwrap();
        daemon.wait_stderr("waiting for a front end", SOON).unwrap();
        namespace.ip(&format!("link set {TAP} up")).unwrap();
        let memory = GuestMemory::with_size(16 << 20).unwrap();
        let mut front_end = FrontEnd::connect(&socket, SOON).unwrap();
        let protocol = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
        front_end
            .handshake(ALL | features::VERSION_1, protocol)
            .unwrap();
        front_end.set_mem_table(&memory).unwrap();
        let _receive = front_end.set_up_queue(0, 64).unwrap();
        let mut transmit = Transmit::new(front_end.set_up_queue(1, 64).unwrap());
        let frame = packet::udp(1, b"hello");
        transmit.send(packet::PLAIN, &frame).unwrap();
        Self {
            daemon,
            front_end,
            namespace,
            scratch,
        }
    }

    /// Fails unless tap, processes and namespace go soon.
    fn assert_nothing_left(self) {
        let Self {
            daemon,
            front_end,
            namespace,
            scratch,
        } = self;
        // The kernel takes a killed daemon's io_uring apart after the process has gone.
        soon("the tap goes", || {
            namespace.ip(&format!("link show {TAP}")).is_err()
        });
        drop((daemon, front_end));
        soon("no process names its socket", || {
            processes_naming(scratch.path()).is_empty()
        });
        let inode = namespace
            .run(|| fs::metadata("/proc/thread-self/ns/net").unwrap().ino())
            .unwrap();
        soon("nobody is in the namespace", || users_of(inode).is_empty());
    }
}

fn soon(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn processes() -> impl Iterator<Item = std::path::PathBuf> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.map(|entry| entry.path())
}

fn processes_naming(dir: &Path) -> Vec<String> {
    let name = dir.to_string_lossy().into_owned();
    let commands = processes().filter_map(|process| fs::read(process.join("cmdline")).ok());
    commands
        .map(|words| String::from_utf8_lossy(&words).replace('\0', " "))
        .filter(|command| command.contains(&name))
        .collect()
}

/// Processes in the network namespace of that inode, or with a descriptor of it; this one, whose threads
/// come and go in it, apart.
fn users_of(inode: u64) -> Vec<String> {
    let own = std::process::id().to_string();
    let uses = |process: &std::path::PathBuf| {
        let is = |path: std::path::PathBuf| fs::metadata(path).is_ok_and(|it| it.ino() == inode);
        let held = fs::read_dir(process.join("fd")).into_iter().flatten();
        is(process.join("ns/net")) || held.flatten().any(|fd| is(fd.path()))
    };
    processes()
        .filter(|process| !process.ends_with(&own) && !process.ends_with("self"))
        .filter(|process| !process.ends_with("thread-self") && uses(process))
        .map(|process| process.display().to_string())
        .collect()
}

#[test]
fn after_a_signal() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut running = Running::start("net-end-signal", &[]);
        running.daemon.signal(signal).unwrap();
        assert!(running.daemon.wait_exit(SOON).unwrap().status.success());
        assert!(!running.scratch.join("net.sock").exists());
        running.assert_nothing_left();
    }
}

#[test]
fn after_a_kill() {
    for sandbox in ["namespace", "none"] {
        let mut running = Running::start("net-end-kill", &["--sandbox", sandbox]);
        running.daemon.kill().unwrap();
        running.assert_nothing_left();
    }
}

#[test]
fn after_the_only_front_end() {
    let mut running = Running::start("net-end-once", &["--once"]);
    let gone = std::mem::replace(
        &mut running.front_end,
        FrontEnd::from_stream(std::os::unix::net::UnixStream::pair().unwrap().0).unwrap(),
    );
    drop(gone);
    assert!(running.daemon.wait_exit(SOON).unwrap().status.success());
    running.assert_nothing_left();
}

#[test]
fn after_a_start_that_fails() {
    let scratch = Scratch::new("net-end-failed").unwrap();
    let namespace = NetNamespace::new().unwrap();
    let socket = scratch.file("taken", "no socket").unwrap();
    let builder = Daemon::builder(PROGRAM)
        .args(["--tap", TAP, "--socket-path"])
        .arg(&socket);
    let mut daemon = namespace.spawn(builder).unwrap();
    let exit = daemon.wait_exit(SOON).unwrap();
    assert!(!exit.status.success(), "{}", exit.stderr);
    soon("the tap goes", || {
        namespace.ip(&format!("link show {TAP}")).is_err()
    });
    assert!(processes_naming(scratch.path()).is_empty());
}
