//! A daemon under test with its image, and a driver on it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

pub mod several;

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use lab::frontend::blk::Blk;
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::process::{Daemon, DaemonBuilder};
use lab::scratch::Scratch;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-blk");
/// Longer than a daemon waits for a file that another one has.
pub const SOON: Duration = Duration::from_secs(20);
/// All features but the dirty log, which a front end asks for while it migrates.
pub const ALL: u64 = !LOG_ALL;
pub const LOG_ALL: u64 = 1 << 26;

/// One daemon serving one image.
pub struct Disk {
    pub daemon: Daemon,
    pub socket: PathBuf,
    pub image: PathBuf,
    pub scratch: Scratch,
}

impl Disk {
    pub fn start(test: &str, bytes: u64) -> Self {
        Self::start_with(test, bytes, |daemon| daemon)
    }

    pub fn start_with(
        test: &str,
        bytes: u64,
        options: impl FnOnce(DaemonBuilder) -> DaemonBuilder,
    ) -> Self {
        let scratch = Scratch::new(test).unwrap();
        let image = scratch.image("disk.img", bytes).unwrap();
        let medium = ["--blk-file".into(), image.clone().into_os_string()];
        Self::launch(scratch, image, |daemon| options(daemon.args(medium)))
    }

    /// A daemon on an image in memory.
    pub fn start_in_memory(test: &str, bytes: u64) -> Self {
        Self::start_in_memory_filled(test, bytes, |_| ())
    }

    /// A daemon on an image in memory that `fill` has written to.
    pub fn start_in_memory_filled(test: &str, bytes: u64, fill: impl FnOnce(&File)) -> Self {
        let scratch = Scratch::in_memory(test).unwrap();
        let image = scratch.join("disk.img");
        let file = File::create_new(&image).unwrap();
        file.set_len(bytes).unwrap();
        fill(&file);
        Self::start_in(scratch, image)
    }

    /// A daemon on an image that is there.
    pub fn start_on(test: &str, image: PathBuf) -> Self {
        Self::start_in(Scratch::new(test).unwrap(), image)
    }

    fn start_in(scratch: Scratch, image: PathBuf) -> Self {
        let medium = ["--blk-file".into(), image.clone().into_os_string()];
        let control = scratch.join("control.sock");
        Self::launch(scratch, image, |daemon| {
            daemon.args(medium).arg("--control").arg(control)
        })
    }

    /// A daemon that forgets what is written.
    pub fn start_null(test: &str, bytes: u64) -> Self {
        let scratch = Scratch::new(test).unwrap();
        let bytes = bytes.to_string();
        Self::launch(scratch, PathBuf::new(), |daemon| {
            daemon.args(["--null", bytes.as_str()])
        })
    }

    /// A daemon on an image that is there already.
    pub fn serve(
        scratch: Scratch,
        image: PathBuf,
        options: impl FnOnce(DaemonBuilder) -> DaemonBuilder,
    ) -> Self {
        let medium = ["--blk-file".into(), image.clone().into_os_string()];
        Self::launch(scratch, image, |daemon| options(daemon.args(medium)))
    }

    fn launch(
        scratch: Scratch,
        image: PathBuf,
        options: impl FnOnce(DaemonBuilder) -> DaemonBuilder,
    ) -> Self {
        let socket = scratch.join("blk.sock");
        let builder = Daemon::builder(PROGRAM)
            .args(["--queues", "4", "--metrics-socket"])
            .arg(scratch.join("metrics.sock"))
            .arg("--socket-path")
            .arg(&socket);
        let daemon = options(builder).spawn_listening(&socket, SOON).unwrap();
        Self {
            daemon,
            socket,
            image,
            scratch,
        }
    }

    /// The daemon's metrics.
    pub fn metrics(&self) -> String {
        use std::io::Read;
        let mut text = String::new();
        let socket = self.scratch.join("metrics.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Waits until the metric `name` is at least `value`.
    pub fn wait_metric(&self, name: &str, value: u64) {
        let deadline = std::time::Instant::now() + SOON;
        loop {
            let metrics = self.metrics();
            let line = metrics.lines().find(|line| line.contains(name));
            let now = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            if now.is_some_and(|now| now >= value) {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{name} is {now:?}, not yet {value}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A front end that has negotiated `wanted` features and shared `memory`.
    pub fn front_end(&self, wanted: u64, memory: &GuestMemory) -> FrontEnd {
        let mut front_end = FrontEnd::connect(&self.socket, SOON).unwrap();
        let protocol = ProtocolFeatures::CONFIG
            | ProtocolFeatures::MQ
            | ProtocolFeatures::REPLY_ACK
            | ProtocolFeatures::BACKEND_REQ
            | ProtocolFeatures::LOG_SHMFD;
        front_end
            .handshake(wanted | features::VERSION_1, protocol)
            .unwrap();
        front_end.set_mem_table(memory).unwrap();
        front_end
    }

    /// A connection with one queue.
    pub fn driver(&self, wanted: u64) -> (FrontEnd, Blk) {
        let memory = GuestMemory::with_size(64 << 20).unwrap();
        let mut front_end = self.front_end(wanted, &memory);
        let queue = front_end.set_up_queue(0, 128).unwrap();
        (front_end, Blk::new(queue))
    }

    /// Fails unless a new connection reads the first sector.
    pub fn assert_serves(&self) {
        let (_front_end, mut blk) = self.driver(ALL);
        let (status, data) = blk.read(0, 512).unwrap();
        assert_eq!((status, data.len()), (0, 512));
    }
}
