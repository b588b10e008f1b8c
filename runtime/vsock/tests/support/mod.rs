//! A daemon under test, and the host's programs around it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

pub mod guest;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lab::process::{Daemon, DaemonBuilder};
use lab::scratch::Scratch;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-vsock");
pub const SOON: Duration = Duration::from_secs(10);
pub const CID: u64 = 7;

/// One daemon.
pub struct Host {
    pub daemon: Daemon,
    pub scratch: Scratch,
}

impl Host {
    pub fn start(test: &str) -> Self {
        Self::start_with(test, |daemon| daemon)
    }

    pub fn start_with(test: &str, options: impl FnOnce(DaemonBuilder) -> DaemonBuilder) -> Self {
        let scratch = Scratch::new(test).unwrap();
        let daemon = Self::daemon(&scratch, options);
        Self { daemon, scratch }
    }

    fn daemon(scratch: &Scratch, options: impl FnOnce(DaemonBuilder) -> DaemonBuilder) -> Daemon {
        let builder = Daemon::builder(PROGRAM)
            .args(["--cid", &CID.to_string(), "--uds-path"])
            .arg(scratch.join("v"))
            .arg("--socket-path")
            .arg(scratch.join("vsock.sock"))
            .arg("--metrics-socket")
            .arg(scratch.join("metrics.sock"));
        let mut daemon = options(builder).spawn().unwrap();
        daemon.wait_stderr("waiting for a front end", SOON).unwrap();
        daemon
    }

    /// Kills the daemon and starts another in its place.
    pub fn replace(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon = Self::daemon(&self.scratch, |daemon| daemon);
    }

    /// Where the VMM connects.
    pub fn socket(&self) -> PathBuf {
        self.scratch.join("vsock.sock")
    }

    /// Listens on a port of the host's.
    pub fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.scratch.join(&format!("v_{port}"))).unwrap()
    }

    /// Connects to the daemon and asks for the guest's port.
    pub fn ask(&self, port: u32) -> UnixStream {
        let mut client = UnixStream::connect(self.scratch.join("v")).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client.set_write_timeout(Some(SOON)).unwrap();
        writeln!(client, "CONNECT {port}").unwrap();
        client
    }

    /// Connects to the guest's port, which may come to be listened on only later.
    pub fn connect_patiently(&self, port: u32, patience: Duration) -> UnixStream {
        let deadline = Instant::now() + patience;
        loop {
            let client = self.ask(port);
            client.set_read_timeout(Some(patience)).unwrap();
            if answered(&client) {
                return client;
            }
            assert!(Instant::now() < deadline, "nobody listens on port {port}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// One of the daemon's metrics, summed over its labels.
    pub fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        let mut metrics = UnixStream::connect(self.scratch.join("metrics.sock")).unwrap();
        metrics.read_to_string(&mut text).unwrap();
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Waits until a metric has this value.
    pub fn wait_metric(&self, name: &str, value: u64) {
        let deadline = Instant::now() + SOON;
        while self.metric(name) != value {
            assert!(
                Instant::now() < deadline,
                "{name} is {} and not {value}",
                self.metric(name)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the daemon says so.
    pub fn daemon_says(&mut self, text: &str) {
        self.daemon.wait_stderr(text, SOON).unwrap();
    }

    /// The daemon has nothing to complain of.
    pub fn check(&self) {
        let stderr = self.daemon.stderr();
        for word in ["broke a rule", "panicked", "ERROR"] {
            assert!(!stderr.contains(word), "{stderr}");
        }
    }
}

/// Reads `OK PORT`; `false` if the connection is refused.
pub fn answered(mut client: &UnixStream) -> bool {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        match client.read(&mut byte) {
            Ok(1) => line.push(byte[0]),
            Ok(_) => return false,
            Err(error) => panic!("no answer to CONNECT: {error}"),
        }
    }
    let line = String::from_utf8(line).unwrap();
    let port = line.strip_prefix("OK ").expect("an answer of OK PORT");
    let port: u32 = port.trim_end().parse().unwrap();
    assert!(port >= 1 << 30);
    true
}
