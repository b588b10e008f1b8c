//! What can happen to the tap, and a stop while frames flow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::frontend::net::{Receive, Transmit};
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures};
use lab::inside::Process;
use lab::netns::Tap;
use network::{ALL, Network, SOON, TAP, packet};
use rustix::process::Resource;

#[test]
fn frames_for_an_interface_that_is_down_are_dropped() {
    let mut network = Network::start("net-down");
    let mut guest = network.guest(ALL, 64, 2048);
    network
        .namespace
        .ip(&format!("link set {TAP} down"))
        .unwrap();
    for _ in 0..50 {
        guest
            .transmit
            .send(packet::PLAIN, &packet::udp(5000, b"lost"))
            .unwrap();
    }
    network.wait_metric(&network.drops(1, "transmit", "down"), 50);
    assert!(network.daemon.stderr().lines().count() < 30);
    network.namespace.ip(&format!("link set {TAP} up")).unwrap();
    network::wire::wait_forwarding(&network.namespace, TAP);
    drop(guest);
    network.assert_serves();
}

#[test]
fn a_tap_that_vanishes_takes_the_link_down_and_nothing_hangs() {
    let mut network = Network::start("net-gone");
    let mut guest = network.guest(ALL, 64, 2048);
    let mut channel = guest.front_end.open_backend_channel().unwrap();
    network.namespace.ip(&format!("link del {TAP}")).unwrap();
    for _ in 0..50 {
        guest
            .transmit
            .send(packet::PLAIN, &packet::udp(5001, b"lost"))
            .unwrap();
    }
    assert!(
        channel.wait_config_changed(SOON).unwrap(),
        "the guest was not told"
    );
    assert_eq!(guest.front_end.get_config(6, 2).unwrap(), [0, 0]);
    network.wait_metric(&network.drops(1, "transmit", "gone"), 50);
    let said = network.daemon.stderr().matches("vanished").count();
    assert_eq!(said, 1, "{}", network.daemon.stderr());
    guest.front_end.stop_queue(0).unwrap();
    drop(guest);
    network.guest(ALL, 64, 2048);
    let exit = network.daemon.terminate(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
}

#[test]
fn a_header_that_contradicts_its_frame_is_the_guests_fault() {
    let mut network = Network::start("net-header");
    let mut guest = network.guest(ALL, 64, 2048);
    let (good, frame) = packet::tcp_unsegmented(5002, 1400, &lab::pattern(1, 4000));
    let mut bad = [good; 4];
    bad[0].gso_type = 0x7f;
    bad[1].csum_start = 60_000;
    bad[2].gso_size = 0;
    bad[3].hdr_len = 60_000;
    for header in bad {
        guest.transmit.send(header, &frame).unwrap();
    }
    guest.transmit.send(packet::PLAIN, &[0; 13]).unwrap();
    guest
        .transmit
        .send(packet::PLAIN, &vec![0; 70_000])
        .unwrap();
    let refused = network.metric(&network.drops(1, "transmit", "malformed"));
    assert!(refused >= 4, "{refused} refused");
    assert_eq!(network.metric(&network.drops(1, "transmit", "too_long")), 1);
    drop(guest);
    network.assert_serves();
}

#[test]
fn no_guest_byte_changes_after_the_answer() {
    let mut network = Network::start("net-stop");
    for round in 0..10_u64 {
        let memory = GuestMemory::with_size(16 << 20).unwrap();
        let mut front_end = network.front_end(ALL, &memory);
        let mut receive = Receive::new(front_end.set_up_queue(0, 256).unwrap(), 2048);
        receive.post(256).unwrap();
        let mut transmit = Transmit::new(front_end.set_up_queue(1, 256).unwrap());
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (header, large) = packet::tcp_unsegmented(5003, 1400, &lab::pattern(1, 9000));
                while !done.load(Ordering::Relaxed) {
                    network.wire.send(header, &large);
                    network
                        .wire
                        .send(packet::PLAIN, &packet::udp(5003, b"small"));
                }
            });
            for _ in 0..60 {
                let frame = packet::udp(5004, &lab::pattern(2, 1000));
                transmit.submit(packet::PLAIN, &frame).unwrap();
            }
            std::thread::sleep(Duration::from_micros(round * 200));
            let base = front_end.stop_queue(0).unwrap();
            let sent = front_end.stop_queue(1).unwrap();
            let sum = memory.checksum_all().unwrap();
            let used = receive.queue_mut().used_idx().unwrap();
            let returned = transmit.exchange().queue().used_idx().unwrap();
            std::thread::sleep(Duration::from_millis(30));
            let now = memory.checksum_all().unwrap();
            // Before anything can fail: the other thread ends only then.
            done.store(true, Ordering::Relaxed);
            assert_eq!((base, sent), (used, returned), "taken and not completed");
            assert_eq!(now, sum, "guest memory changed after the answer");
        });
    }
    network.assert_serves();
}

#[test]
fn a_stopped_queue_goes_on_where_it_stopped() {
    let mut network = Network::start("net-resume");
    let mut guest = network.guest(ALL, 200, 2048);
    for n in 0..30_u8 {
        for _ in 0..10 {
            network.wire.send(packet::PLAIN, &packet::udp(5005, &[n]));
        }
        let base = guest.front_end.stop_queue(0).unwrap();
        let queue = guest.receive.queue_mut();
        guest.front_end.attach_queue(queue, base).unwrap();
        let mut count = 0;
        while count < 10 {
            let frames = guest.receive.receive(SOON).unwrap();
            assert!(!frames.is_empty(), "{count} of 10 frames after stop {n}");
            let ours = frames
                .iter()
                .filter(|f| packet::udp_port(&f.frame) == Some(5005));
            count += ours
                .inspect(|f| assert_eq!(packet::udp_payload(&f.frame), [n]))
                .count();
        }
    }
}

/// Frames pass, for what they need is there; who comes finds no room.
#[test]
fn without_memory_to_have_frames_pass_and_a_front_end_without_room_is_refused() {
    let mut network = Network::start("net-memory-short");
    let mut guest = network.guest(ALL, 200, 2048);
    let (header, large) = packet::tcp_unsegmented(5006, 1400, &lab::pattern(1, 30_000));
    let process = Process::serving(&network.daemon);
    for round in 0..40_u8 {
        if round == 20 {
            process.limit(Resource::Data, "VmData", 0);
        }
        // The large one takes many buffers of the guest, and room of ours when they run out.
        network.wire.send(header, &large);
        network
            .wire
            .send(packet::PLAIN, &packet::udp(5007, &[round]));
        assert_eq!(packet::udp_payload(&guest.next_udp(5007).frame), [round]);
        let frame = packet::udp(5008, &[round]);
        guest.transmit.send(packet::PLAIN, &frame).unwrap();
        assert_eq!(network.wire.receive_udp(5008), [round]);
    }
    process.unlimit(Resource::Data);
    process.limit(Resource::As, "VmSize", 0);
    drop(guest);
    let memory = GuestMemory::with_size(1 << 30).unwrap();
    let refused = FrontEnd::connect(&network.socket, SOON).and_then(|mut front_end| {
        front_end.handshake(ALL, ProtocolFeatures::REPLY_ACK)?;
        front_end.set_mem_table(&memory)
    });
    assert!(refused.is_err(), "1 GiB was mapped beyond the limit");
    process.unlimit(Resource::As);
    network.assert_serves();
}

/// A front end of 17 queues, some of which find no descriptors: it is refused, and nothing of it stays.
#[test]
fn without_descriptors_for_all_queues_a_front_end_is_refused_and_nothing_of_it_stays() {
    let tap = Tap {
        multi_queue: true,
        ..Tap::default()
    };
    let mut network = Network::start_with("net-descriptors-short", &tap, |daemon| {
        daemon.args(["--queue-pairs", "8"])
    });
    let process = Process::serving(&network.daemon);
    let before = process.holdings();
    // Standard streams; two for each queue, which are there before the first thread starts; three for each thread.
    let some = before.descriptors + 3 + 17 * 2 + 20;
    process.set_limit(Resource::Nofile, Some(some));
    for round in 0..5 {
        let refused = FrontEnd::connect(&network.socket, SOON)
            .and_then(|mut front_end| front_end.handshake(ALL, ProtocolFeatures::REPLY_ACK));
        assert!(refused.is_err(), "front end {round} is served");
    }
    assert!(network.daemon.is_running(), "{}", network.daemon.stderr());
    let deadline = Instant::now() + SOON;
    loop {
        let now = process.holdings();
        if (now.threads, now.descriptors) == (before.threads, before.descriptors) {
            break;
        }
        assert!(Instant::now() < deadline, "{before:?}, {now:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    process.unlimit(Resource::Nofile);
    network.assert_serves();
    let log = network.daemon.stderr();
    assert!(log.contains("the front end cannot be served"), "{log}");
}
