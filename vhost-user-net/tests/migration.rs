//! The dirty log: a migrating front end learns of every page that received frames changed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use lab::frontend::net::Receive;
use lab::frontend::{GuestAddress, GuestMemory};
use network::{ALL, Network, packet};
use rustix::fs::{MemfdFlags, memfd_create};
use vhost::{VhostBackend, VhostUserDirtyLogRegion};

const PAGE: usize = 4096;
const MEMORY: usize = 16 << 20;
/// `VHOST_F_LOG_ALL`.
const LOG_ALL: u64 = 1 << 26;

#[test]
fn every_page_that_a_frame_changed_is_in_the_log() {
    let mut network = Network::start("net-dirty");
    let memory = GuestMemory::with_size(MEMORY).unwrap();
    let mut front_end = network.front_end(ALL & !LOG_ALL, &memory);
    let log = std::fs::File::from(memfd_create("log", MemfdFlags::CLOEXEC).unwrap());
    let bytes = MEMORY / PAGE / 8;
    log.set_len(bytes as u64).unwrap();
    let region = VhostUserDirtyLogRegion {
        mmap_size: bytes as u64,
        mmap_offset: 0,
        mmap_handle: log.as_raw_fd(),
    };
    front_end
        .request("SET_LOG_BASE", |it| it.set_log_base(0, Some(region)))
        .unwrap();
    let features = front_end.negotiated().unwrap().features;
    front_end
        .request("SET_FEATURES", |it| it.set_features(features | LOG_ALL))
        .unwrap();
    let mut receive = Receive::new(front_end.set_up_queue(0, 256).unwrap(), 2048);
    receive.post(100).unwrap();
    let before = memory.read(GuestAddress(0), MEMORY).unwrap();
    // Short ones, and one that fills many buffers, in part by way of the daemon's own memory.
    let (header, large) = packet::tcp_unsegmented(3, 1400, &lab::pattern(1, 60_000));
    for round in 0..3 {
        network
            .wire
            .send(packet::PLAIN, &packet::udp(2, &lab::pattern(round, 1000)));
        network.wire.send(header, &large);
    }
    let mut large_ones = 0;
    while large_ones < 3 {
        let frames = receive.receive(network::SOON).unwrap();
        assert!(!frames.is_empty());
        large_ones += frames.iter().filter(|it| it.frame.len() > 60_000).count();
    }
    front_end.stop_queue(0).unwrap();
    let after = memory.read(GuestAddress(0), MEMORY).unwrap();
    let mut logged = vec![0; bytes];
    log.read_exact_at(&mut logged, 0).unwrap();
    // The driver writes its own part of the ring: the buffers are the device's alone.
    let ring = receive.queue_mut().addresses();
    let rings = [ring.desc, ring.avail, ring.used].map(|at| usize::try_from(at.0).unwrap() / PAGE);
    let mut changed = 0;
    let pages = before.chunks(PAGE).zip(after.chunks(PAGE)).enumerate();
    for (page, _) in pages.filter(|(_, (before, after))| before != after) {
        if !rings.contains(&page) {
            changed += 1;
            assert!(
                logged[page / 8] & 1 << (page % 8) != 0,
                "page {page} changed unseen"
            );
        }
    }
    assert!(changed > 0, "no page was looked at");
    let marked: u32 = logged.iter().map(|byte| byte.count_ones()).sum();
    assert!((40..60).contains(&marked), "{marked} pages are marked");
}
