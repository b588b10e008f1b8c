//! A daemon under test with its directory, and a driver on it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

pub mod session;

use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::frontend::fs::{Fs, REQUEST_QUEUE};
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::process::{Daemon, DaemonBuilder};
use lab::scratch::Scratch;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_virtiofsd");
/// Longer than a daemon waits for a state directory that another one has.
pub const SOON: Duration = Duration::from_secs(20);

/// Name of the file system in guests.
pub const TAG: &str = "share";

/// One daemon serving one directory.
pub struct Share {
    pub daemon: Daemon,
    pub socket: PathBuf,
    pub directory: PathBuf,
    pub scratch: Scratch,
}

impl Share {
    pub fn start(test: &str) -> Self {
        Self::start_with(test, |daemon| daemon)
    }

    pub fn start_with(test: &str, options: impl FnOnce(DaemonBuilder) -> DaemonBuilder) -> Self {
        let scratch = Scratch::new(test).unwrap();
        let directory = scratch.dir("shared").unwrap();
        Self::launch(scratch, directory, options)
    }

    /// A daemon that serves a directory on the disk, and one that serves a directory in memory: data move
    /// differently.
    pub fn each_medium(test: &str) -> [Self; 2] {
        [Scratch::new(test), Scratch::in_memory(test)].map(|scratch| {
            let scratch = scratch.unwrap();
            let directory = scratch.dir("shared").unwrap();
            Self::launch(scratch, directory, |daemon| daemon)
        })
    }

    /// A daemon that serves a directory in memory.
    pub fn start_in_memory(
        test: &str,
        options: impl FnOnce(DaemonBuilder) -> DaemonBuilder,
    ) -> Self {
        let scratch = Scratch::in_memory(test).unwrap();
        let directory = scratch.dir("shared").unwrap();
        Self::launch(scratch, directory, options)
    }

    /// A daemon that serves an existing directory.
    pub fn start_on(
        test: &str,
        directory: &Path,
        options: impl FnOnce(DaemonBuilder) -> DaemonBuilder,
    ) -> Self {
        Self::launch(Scratch::new(test).unwrap(), directory.to_owned(), options)
    }

    /// A daemon in a mount namespace of its own, where `script` has prepared the directory, as its
    /// current one.
    pub fn start_in_namespace(
        test: &str,
        script: &str,
        options: impl FnOnce(DaemonBuilder) -> DaemonBuilder,
    ) -> Self {
        let scratch = Scratch::new(test).unwrap();
        let directory = scratch.dir("shared").unwrap();
        let shell = format!("cd \"$1\" && {{ {script}; }} && cd / && shift && exec \"$@\"");
        let builder = Daemon::builder("unshare")
            .args(["--mount", "sh", "-c", &shell, "sh"])
            .args([directory.as_path(), Path::new(PROGRAM)]);
        Self::launch_by(builder, scratch, directory, options)
    }

    fn launch(
        scratch: Scratch,
        directory: PathBuf,
        options: impl FnOnce(DaemonBuilder) -> DaemonBuilder,
    ) -> Self {
        Self::launch_by(Daemon::builder(PROGRAM), scratch, directory, options)
    }

    fn launch_by(
        builder: DaemonBuilder,
        scratch: Scratch,
        directory: PathBuf,
        options: impl FnOnce(DaemonBuilder) -> DaemonBuilder,
    ) -> Self {
        let socket = scratch.join("fs.sock");
        let builder = serving(builder, &socket, &directory);
        let daemon = options(builder).spawn_listening(&socket, SOON).unwrap();
        Self {
            daemon,
            socket,
            directory,
            scratch,
        }
    }

    /// Another daemon for the same directory and socket, which remembers what its guest has open.
    pub fn remembering(&self) -> DaemonBuilder {
        serving(Daemon::builder(PROGRAM), &self.socket, &self.directory)
            .arg("--state-dir")
            .arg(self.scratch.join("state"))
    }

    /// A front end that has shared `memory`.
    pub fn front_end(&self, wanted: u64, memory: &GuestMemory) -> FrontEnd {
        let mut front_end = FrontEnd::connect(&self.socket, SOON).unwrap();
        let protocol =
            ProtocolFeatures::CONFIG | ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
        front_end
            .handshake(wanted | features::VERSION_1, protocol)
            .unwrap();
        front_end.set_mem_table(memory).unwrap();
        front_end
    }

    /// A connection with one request queue on which nothing has been said yet.
    pub fn driver(&self) -> (FrontEnd, Fs) {
        let memory = GuestMemory::with_size(64 << 20).unwrap();
        let mut front_end = self.front_end(u64::MAX, &memory);
        let queue = front_end.set_up_queue(REQUEST_QUEUE, 128).unwrap();
        (front_end, Fs::new(queue))
    }

    /// A connection that has mounted.
    pub fn mounted(&self) -> (FrontEnd, Fs) {
        let (front_end, mut fs) = self.driver();
        fs.init(38, 0).unwrap();
        (front_end, fs)
    }

    /// Fails unless a new connection mounts.
    pub fn assert_serves(&self) {
        drop(self.mounted());
    }
}

fn serving(builder: DaemonBuilder, socket: &Path, directory: &Path) -> DaemonBuilder {
    builder
        .args(["--queues", "2", "--tag", TAG, "--socket-path"])
        .arg(socket)
        .arg("--shared-dir")
        .arg(directory)
}
