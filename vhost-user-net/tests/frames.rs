//! Frames in both directions, whole and unfinished, through one buffer and many.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::collections::HashMap;
use std::time::Duration;

use lab::frontend::{GuestAddress, GuestMemory, Segment};

use network::{ALL, Network, SOON, next_udp, packet};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_MRG_RXBUF,
};

const BIG: usize = 60_000;
const MOMENT: Duration = Duration::from_millis(300);

fn without<const N: usize>(bits: [u32; N]) -> u64 {
    bits.into_iter().fold(ALL, |set, bit| set & !(1 << bit))
}

#[test]
fn a_sent_frame_reaches_the_wire() {
    let mut network = Network::start("net-tx");
    let mut guest = network.guest(ALL, 64, 2048);
    for len in [0, 1, 100, 1472] {
        let payload = lab::pattern(7, len);
        guest
            .transmit
            .send(packet::PLAIN, &packet::udp(4000, &payload))
            .unwrap();
        assert_eq!(network.wire.receive_udp(4000), payload);
    }
    network.wait_metric("net_frames_total{queue=\"1\",direction=\"transmit\"}", 4);
}

#[test]
fn an_unfinished_checksum_is_finished_on_the_way() {
    let mut network = Network::start("net-csum");
    let mut guest = network.guest(ALL, 64, 2048);
    let (header, frame) = packet::udp_unfinished(4001, b"unfinished");
    assert!(!packet::checksum_holds(&frame));
    guest.transmit.send(header, &frame).unwrap();
    assert_eq!(network.wire.receive_udp(4001), b"unfinished");
}

#[test]
fn a_received_frame_fills_one_buffer_or_several() {
    let mut network = Network::start("net-rx");
    for (buffer_len, buffers) in [(2048, 1), (256, 5), (100, 11)] {
        let mut guest = network.guest(ALL, 64, buffer_len);
        let payload = lab::pattern(8, 1000);
        network
            .wire
            .send(packet::PLAIN, &packet::udp(4002, &payload));
        let received = guest.next_udp(4002);
        assert_eq!(packet::udp_payload(&received.frame), payload);
        assert_eq!(
            received.header.num_buffers, buffers,
            "of {buffer_len} bytes"
        );
    }
}

#[test]
fn a_segmented_frame_of_the_guest_arrives_in_pieces() {
    let mut network = Network::start("net-tso-tx");
    let mut guest = network.guest(ALL, 64, 2048);
    let payload = lab::pattern(9, BIG);
    let (header, frame) = packet::tcp_unsegmented(4003, 1400, &payload);
    guest.transmit.send(header, &frame).unwrap();
    let mut stream = vec![0; BIG];
    let mut missing = BIG;
    while missing > 0 {
        missing -= network.wire.find(|frame| {
            let (offset, piece) = packet::tcp_payload(frame, 4003)?;
            assert!(frame.len() <= 1514 && packet::checksum_holds(frame));
            stream[offset..][..piece.len()].copy_from_slice(piece);
            Some(piece.len())
        });
    }
    assert!(stream == payload);
}

#[test]
fn a_guest_with_tso_receives_a_frame_of_60_kilobytes_at_once() {
    let mut network = Network::start("net-tso-rx");
    let mut guest = network.guest(ALL, 128, 1526);
    for seed in 0..10 {
        let payload = lab::pattern(seed, BIG);
        let (header, frame) = packet::tcp_unsegmented(4004, 1400, &payload);
        network.wire.send(header, &frame);
        let received = loop {
            let frames = guest.receive.receive(SOON).unwrap();
            let found = frames
                .into_iter()
                .find(|f| packet::tcp_payload(&f.frame, 4004).is_some());
            if let Some(found) = found {
                break found;
            }
        };
        assert!(received.frame == frame, "the frame differs");
        assert_eq!(received.header.gso_type, packet::GSO_TCPV4);
        assert_eq!(received.header.gso_size, 1400);
        let needed = (12 + frame.len()).div_ceil(1526);
        assert_eq!(usize::from(received.header.num_buffers), needed);
    }
}

#[test]
fn a_guest_without_offloads_receives_finished_segments() {
    let mut network = Network::start("net-plain-rx");
    let features = without([VIRTIO_NET_F_GUEST_CSUM]);
    let mut guest = network.guest(features, 128, 2048);
    let payload = lab::pattern(10, 20_000);
    let (header, frame) = packet::tcp_unsegmented(4005, 1400, &payload);
    network.wire.send(header, &frame);
    let mut stream = vec![0; payload.len()];
    let mut missing = payload.len();
    while missing > 0 {
        let frames = guest.receive.receive(SOON).unwrap();
        assert!(!frames.is_empty(), "{missing} bytes are missing");
        for received in frames {
            if let Some((offset, piece)) = packet::tcp_payload(&received.frame, 4005) {
                assert!(packet::checksum_holds(&received.frame));
                assert_eq!((received.header.flags, received.header.gso_type), (0, 0));
                stream[offset..][..piece.len()].copy_from_slice(piece);
                missing -= piece.len();
            }
        }
    }
    assert!(stream == payload);
}

#[test]
fn a_frame_longer_than_its_buffer_is_dropped_and_the_next_one_comes() {
    let mut network = Network::start("net-long");
    let features = without([VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_GUEST_TSO4]);
    let mut guest = network.guest(features, 16, 256);
    let long = packet::udp(4006, &lab::pattern(1, 500));
    network.wire.send(packet::PLAIN, &long);
    network
        .wire
        .send(packet::PLAIN, &packet::udp(4006, b"short"));
    let received = guest.next_udp(4006);
    assert_eq!(packet::udp_payload(&received.frame), b"short");
    assert_eq!(received.header.num_buffers, 1);
    network.wait_metric(&network.drops(0, "receive", "too_long"), 1);
}

#[test]
fn a_guest_that_offers_too_little_loses_the_frame_and_nothing_else() {
    let mut network = Network::start("net-few");
    let mut guest = network.guest(ALL, 4, 2048);
    let (header, frame) = packet::tcp_unsegmented(4007, 1400, &lab::pattern(2, BIG));
    for _ in 0..5 {
        network.wire.send(header, &frame);
    }
    network
        .wire
        .send(packet::PLAIN, &packet::udp(4007, b"next"));
    let received = guest.next_udp(4007);
    assert_eq!(packet::udp_payload(&received.frame), b"next");
    network.wait_metric(&network.drops(0, "receive", "no_buffers"), 5);
}

#[test]
fn a_frame_waits_a_moment_for_more_buffers() {
    let mut network = Network::start("net-spill");
    let mut guest = network.guest(ALL, 4, 2048);
    // The machine may be slow enough for the frame's patience to end: then it is sent again.
    for seed in 0..50 {
        let payload = lab::pattern(seed, 12_000);
        let (header, frame) = packet::tcp_unsegmented(4008, 1400, &payload);
        network.wire.send(header, &frame);
        std::thread::sleep(Duration::from_millis(1));
        guest.receive.post(1).unwrap();
        guest.receive.post(3).unwrap();
        let frames = guest.receive.receive(MOMENT).unwrap();
        if let Some(received) = frames.into_iter().find(|f| f.frame.len() == frame.len()) {
            assert!(received.frame == frame, "the frame differs");
            assert!(received.header.num_buffers >= 6);
            return;
        }
        network
            .wire
            .send(packet::PLAIN, &packet::udp(4008, b"flush"));
        guest.next_udp(4008);
        guest = network.guest(ALL, 4, 2048);
    }
    panic!("no frame waited for its buffers");
}

/// The kernel takes 1024 pieces at once; here a frame ends in the middle of a chain beyond that.
#[test]
fn a_frame_in_more_pieces_than_the_kernel_takes_arrives_whole() {
    const PIECE: u32 = 40;
    let mut network = Network::start("net-pieces");
    let memory = GuestMemory::with_size(64 << 20).unwrap();
    let mut front_end = network.front_end(ALL, &memory);
    let mut queue = front_end.set_up_queue(0, 256).unwrap();
    let mut chains = HashMap::new();
    for _ in 0..10 {
        let start = memory.alloc(200 * PIECE as usize, 64).unwrap();
        let piece = |n| Segment::writable(GuestAddress(start.0 + n * u64::from(PIECE)), PIECE);
        let pieces: Vec<Segment> = (0..200).map(piece).collect();
        chains.insert(u32::from(queue.add_chain(&pieces, true).unwrap()), start);
    }
    queue.kick().unwrap();
    let (header, frame) = packet::tcp_unsegmented(4013, 1400, &lab::pattern(3, BIG));
    network.wire.send(header, &frame);
    let mut received = Vec::new();
    while received.len() < 12 + frame.len() {
        let used = queue.wait_used(SOON).unwrap();
        assert!(!used.is_empty(), "{} bytes came", received.len());
        for used in used {
            let len = used.len as usize;
            received.extend(memory.read(chains[&used.id], len).unwrap());
        }
    }
    assert_eq!(received[10..12], [8, 0], "buffers");
    assert!(received[12..] == frame, "the frame differs");
}

#[test]
fn without_buffers_frames_wait_and_the_thread_sleeps() {
    let mut network = Network::start("net-starved");
    let mut guest = network.guest(ALL, 0, 2048);
    for n in 0..20_u8 {
        network.wire.send(packet::PLAIN, &packet::udp(4009, &[n]));
    }
    std::thread::sleep(MOMENT);
    let before = network.daemon.cpu_ticks().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        network.daemon.cpu_ticks().unwrap() - before <= 5,
        "a busy loop"
    );
    guest.receive.post(64).unwrap();
    let mut arrived = Vec::new();
    while arrived.len() < 20 {
        let frames = guest.receive.receive(SOON).unwrap();
        assert!(!frames.is_empty(), "{} of 20 frames came", arrived.len());
        let ours = frames
            .iter()
            .filter(|f| packet::udp_port(&f.frame) == Some(4009));
        arrived.extend(ours.map(|f| packet::udp_payload(&f.frame)[0]));
    }
    assert_eq!(arrived, (0..20).collect::<Vec<u8>>());
}

#[test]
fn a_storm_in_both_directions_loses_nothing_that_fits() {
    let mut network = Network::start("net-storm");
    let mut guest = network.guest(ALL, 128, 2048);
    for round in 0..50_u64 {
        for n in 0..32_u64 {
            let payload = lab::pattern(round * 32 + n, 500);
            guest
                .transmit
                .submit(packet::PLAIN, &packet::udp(4010, &payload))
                .unwrap();
            network
                .wire
                .send(packet::PLAIN, &packet::udp(4011, &payload));
        }
        for n in 0..32_u64 {
            let payload = lab::pattern(round * 32 + n, 500);
            assert!(network.wire.receive_udp(4010) == payload);
        }
        let mut n = 0;
        while n < 32 {
            let frames = guest.receive.receive(SOON).unwrap();
            assert!(!frames.is_empty(), "frame {n} of round {round} is missing");
            for received in frames {
                if packet::udp_port(&received.frame) == Some(4011) {
                    let payload = lab::pattern(round * 32 + n, 500);
                    assert!(packet::udp_payload(&received.frame) == payload);
                    n += 1;
                }
            }
        }
        guest.transmit.exchange().poll().unwrap();
    }
    let interrupts = network.metric("interrupts_total{queue=\"0\"}");
    assert!(interrupts > 0);
}

#[test]
fn an_idle_daemon_sleeps() {
    let mut network = Network::start("net-idle");
    network.assert_serves();
    let mut guest = network.guest(ALL, 64, 2048);
    for _ in 0..100 {
        network.wire.send(packet::PLAIN, &packet::udp(4012, b"x"));
        assert!(next_udp(&mut guest.receive, 4012, SOON).is_some());
    }
    std::thread::sleep(Duration::from_millis(100));
    let before = network.daemon.cpu_ticks().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(network.daemon.cpu_ticks().unwrap() - before <= 5);
}
