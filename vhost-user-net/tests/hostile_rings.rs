//! Rings and descriptors that stand in the way: the daemon neither spins nor hangs nor floods its log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::Event;
use lab::frontend::net::Transmit;
use lab::frontend::{GuestMemory, features};
use network::{ALL, Network, SOON, packet};
use vhost::VhostBackend;

const MOMENT: Duration = Duration::from_millis(300);
const TRANSMIT: usize = 1;

/// The daemon neither spins nor floods its log for a moment, and serves the next connection.
fn assert_calm(network: &mut Network) {
    std::thread::sleep(Duration::from_millis(100));
    let lines = |network: &Network| network.daemon.stderr().lines().count();
    let (ticks, before) = (network.daemon.cpu_ticks().unwrap(), lines(network));
    std::thread::sleep(MOMENT);
    let spent = network.daemon.cpu_ticks().unwrap() - ticks;
    assert!(spent < 15, "the daemon spins: {spent} ticks");
    assert!(lines(network) < before + 10, "the daemon floods its log");
    assert!(network.daemon.is_running());
}

#[test]
fn a_ring_that_cannot_run_is_refused_once_and_calmly() {
    let mut network = Network::start("net-refused");
    let memory = GuestMemory::with_size(16 << 20).unwrap();
    let mut front_end = network.front_end(ALL, &memory);
    let queue = front_end.lay_out_queue(TRANSMIT, 64).unwrap();
    front_end.attach_queue(&queue, 0).unwrap();
    front_end
        .request("SET_VRING_NUM", |vhost| vhost.set_vring_num(TRANSMIT, 100))
        .unwrap();
    queue.kick_always().unwrap();
    assert_calm(&mut network);
    let stderr = network.daemon.stderr();
    assert!(
        stderr.contains("queue size that is no power of two"),
        "{stderr}"
    );
    // Put right, it runs.
    front_end.attach_queue(&queue, 0).unwrap();
    let frame = packet::udp(7100, b"put right");
    Transmit::new(queue).send(packet::PLAIN, &frame).unwrap();
    assert_eq!(network.wire.receive_udp(7100), b"put right");
}

#[test]
fn a_ring_without_addresses_is_not_served() {
    let mut network = Network::start("net-no-addresses");
    let memory = GuestMemory::with_size(8 << 20).unwrap();
    let mut front_end = network.front_end(ALL, &memory);
    let before = memory.checksum_all().unwrap();
    for index in 0..2 {
        let event = Event::new().unwrap();
        front_end
            .request("SET_VRING_KICK", |vhost| {
                vhost.set_vring_kick(index, event.eventfd())
            })
            .unwrap();
        front_end.enable_queue(index, true).unwrap();
        event.signal().unwrap();
    }
    network
        .wire
        .send(packet::PLAIN, &packet::udp(7101, b"for nobody"));
    assert_calm(&mut network);
    let after = memory.checksum_all().unwrap();
    assert_eq!(after, before, "guest memory was written");
    drop(front_end);
    network.assert_serves();
}

#[test]
fn an_endless_stream_of_broken_chains_does_not_hold_up_the_stop() {
    for index in 0..2 {
        let mut network = Network::start("net-stream");
        let memory = GuestMemory::with_size(16 << 20).unwrap();
        let mut front_end = network.front_end(ALL, &memory);
        let mut queue = front_end.set_up_queue(index, 64).unwrap();
        let buffer = memory.alloc(64, 16).unwrap();
        queue.submit_loop(buffer, 64).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Another CPU of the guest: more of them as fast as the device takes them.
                while !done.load(Ordering::Relaxed) {
                    let room = queue.used_idx().unwrap().wrapping_add(32);
                    queue.write_avail_idx(room).unwrap();
                    queue.kick_always().unwrap();
                }
            });
            std::thread::sleep(MOMENT);
            let started = Instant::now();
            front_end.stop_queue(index).unwrap();
            done.store(true, Ordering::Relaxed);
            let took = started.elapsed();
            assert!(took < Duration::from_secs(5), "the stop took {took:?}");
        });
        drop(front_end);
        network.assert_serves();
    }
}

#[test]
fn a_full_call_descriptor_blocks_nothing() {
    let mut network = Network::start("net-full-call");
    let mut guest = network.guest(ALL & !features::EVENT_IDX, 32, 2048);
    let event = Event::full_and_blocking().unwrap();
    for index in 0..2 {
        guest
            .front_end
            .request("SET_VRING_CALL", |vhost| {
                vhost.set_vring_call(index, event.eventfd())
            })
            .unwrap();
    }
    let frame = packet::udp(7102, b"goes out");
    guest.transmit.submit(packet::PLAIN, &frame).unwrap();
    assert_eq!(network.wire.receive_udp(7102), b"goes out");
    network.wire.send(packet::PLAIN, &frame);
    network.wait_metric("net_frames_total{queue=\"0\",direction=\"receive\"}", 1);
    // Both queues' threads come back.
    guest.front_end.stop_queue(0).unwrap();
    guest.front_end.stop_queue(TRANSMIT).unwrap();
    drop(guest);
    network.assert_serves();
    assert!(network.daemon.terminate(SOON).unwrap().status.success());
}

#[test]
fn a_write_to_the_configuration_changes_nothing() {
    let mut network = Network::start("net-bad-config");
    let mut guest = network.guest(ALL, 32, 2048);
    let before = guest.front_end.get_config(0, 12).unwrap();
    for (offset, bytes) in [
        (0, &[2_u8; 6][..]),
        (6, &[0; 2]),
        (10, &[1; 2]),
        (250, &[1; 4]),
    ] {
        // Without an answer: a front end may ask for one, and is told of no error either.
        guest.front_end.set_config(offset, bytes).unwrap();
    }
    assert_eq!(guest.front_end.get_config(0, 12).unwrap(), before);
    drop(guest);
    network.assert_serves();
}

#[test]
fn breaking_rings_again_and_again_does_not_flood_the_log() {
    let network = Network::start("net-break-flood");
    let memory = GuestMemory::with_size(16 << 20).unwrap();
    let mut front_end = network.front_end(ALL, &memory);
    for round in 0..100 {
        let index = round % 2;
        let mut queue = front_end.set_up_queue(index, 64).unwrap();
        queue.overflow_avail().unwrap();
        front_end.stop_queue(index).unwrap();
    }
    let lines = network.daemon.stderr().lines().count();
    assert!(lines < 50, "{lines} log lines");
}
