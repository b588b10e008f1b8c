//! A daemon under test with its image, and a driver on it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::path::PathBuf;
use std::time::Duration;

use lab::frontend::blk::Blk;
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::process::{Daemon, DaemonBuilder};
use lab::scratch::Scratch;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-blk");
pub const SOON: Duration = Duration::from_secs(10);
pub const ALL: u64 = u64::MAX;

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
        let socket = scratch.join("blk.sock");
        let builder = Daemon::builder(PROGRAM)
            .args(["--queues", "4", "--socket-path"])
            .arg(&socket)
            .arg("--blk-file")
            .arg(&image);
        let daemon = options(builder).spawn_listening(&socket, SOON).unwrap();
        Self {
            daemon,
            socket,
            image,
            scratch,
        }
    }

    /// A front end that has negotiated `wanted` features and shared `memory`.
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

/// Bytes that differ from sector to sector and from seed to seed.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
