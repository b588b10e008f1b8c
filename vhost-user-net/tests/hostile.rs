//! Guests and front ends that break the rules: one clear answer, and the daemon lives on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::time::Duration;

use lab::frontend::garbage::{self, Reaction};
use lab::frontend::net::{Receive, Transmit};
use lab::frontend::{
    Descriptor, DriverQueue, FrontEnd, GuestAddress, GuestMemory, ProtocolFeatures, Result,
    descriptor_flags as flag,
};
use network::{ALL, Network, SOON, next_udp, packet};

const MOMENT: Duration = Duration::from_millis(300);
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// What a hostile guest does to a queue, with a buffer of a megabyte.
type Attack = fn(&mut DriverQueue, GuestAddress) -> Result<()>;

fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        addr,
        len,
        flags,
        next,
    }
}

fn one(queue: &mut DriverQueue, chain: &[Descriptor]) -> Result<()> {
    queue.submit_raw(0, chain)
}

/// Broken chains: each is given back with length 0, the queue goes on.
const BAD_CHAINS: [(&str, Attack); 11] = [
    ("loop", |q, b| q.submit_loop(b, 4)),
    ("next out of range", |q, b| q.submit_next_out_of_range(b)),
    ("nested indirect table", |q, b| q.submit_nested_indirect(b)),
    ("indirect table of odd length", |q, b| {
        q.submit_indirect_bad_len(b)
    }),
    ("indirect table outside memory", |q, _| {
        one(q, &[descriptor(1 << 50, 32, flag::INDIRECT, 0)])
    }),
    ("zero length", |q, b| one(q, &[descriptor(b.0, 0, 0, 0)])),
    ("outside memory", |q, _| {
        one(q, &[descriptor(1 << 50, 2048, flag::WRITE, 0)])
    }),
    ("address overflow", |q, _| {
        one(q, &[descriptor(u64::MAX - 8, 2048, 0, 0)])
    }),
    ("longer than memory", |q, b| {
        one(q, &[descriptor(b.0, u32::MAX, flag::WRITE, 0)])
    }),
    ("readable after writable", |q, b| {
        let first = descriptor(b.0, 2048, flag::NEXT | flag::WRITE, 1);
        one(q, &[first, descriptor(b.0, 2048, 0, 0)])
    }),
    ("readable and writable", |q, b| {
        let first = descriptor(b.0, 2048, flag::NEXT, 1);
        one(q, &[first, descriptor(b.0, 2048, flag::WRITE, 0)])
    }),
];

/// Broken rings: the queue stops until it is set up again.
const BAD_RINGS: [(&str, Attack); 3] = [
    ("available index overruns", |q, _| q.overflow_avail()),
    ("head out of range", |q, _| q.submit_head(q.size())),
    ("head made available twice", |q, b| {
        // The receive queue holds chains: the second time finds the first in flight.
        q.write_descriptor(0, descriptor(b.0, 2048, flag::WRITE, 0))?;
        let position = q.avail_idx();
        for n in 0..32 {
            q.write_avail_entry(position.wrapping_add(n) % q.size(), 0)?;
        }
        q.write_avail_idx(position.wrapping_add(32))?;
        q.kick_always()
    }),
];

/// Attacks queue `index`; the wire sends something, so that the receive queue is looked at.
fn attacked(network: &mut Network, index: usize, attack: Attack) -> (FrontEnd, DriverQueue) {
    let memory = GuestMemory::with_size(64 << 20).unwrap();
    let mut front_end = network.front_end(ALL, &memory);
    let mut victim = front_end.set_up_queue(index, 64).unwrap();
    let buffer = memory.alloc(1 << 20, 4096).unwrap();
    attack(&mut victim, buffer).unwrap();
    for _ in 0..4 {
        let (header, frame) = packet::tcp_unsegmented(7000, 1400, &[0; 5000]);
        network.wire.send(header, &frame);
    }
    (front_end, victim)
}

/// The other direction of the same connection still works.
fn other_direction_works(network: &mut Network, front_end: &mut FrontEnd, index: usize) {
    let queue = front_end.set_up_queue(1 - index, 64).unwrap();
    if index == RECEIVE {
        let frame = packet::udp(7001, b"still here");
        Transmit::new(queue).send(packet::PLAIN, &frame).unwrap();
        assert_eq!(network.wire.receive_udp(7001), b"still here");
    } else {
        let mut receive = Receive::new(queue, 2048);
        receive.post(50).unwrap();
        network
            .wire
            .send(packet::PLAIN, &packet::udp(7001, b"still here"));
        assert!(next_udp(&mut receive, 7001, SOON).is_some());
    }
}

#[test]
fn broken_chains_are_given_back_and_the_queue_goes_on() {
    let mut network = Network::start("net-chains");
    for index in [RECEIVE, TRANSMIT] {
        for (name, attack) in BAD_CHAINS {
            let (mut front_end, mut victim) = attacked(&mut network, index, attack);
            assert!(victim.any_used(SOON).unwrap(), "queue {index}, {name}");
            other_direction_works(&mut network, &mut front_end, index);
            // The same queue goes on: a sound buffer behind the broken one.
            let at = victim.memory().alloc(4096, 4096).unwrap();
            let frame = [&[0; 12][..], &packet::udp(7002, name.as_bytes())].concat();
            victim.memory().write(at, &frame).unwrap();
            let (len, flags) = match index {
                TRANSMIT => (u32::try_from(frame.len()).unwrap(), 0),
                _ => (4096, flag::WRITE),
            };
            victim
                .submit_raw(40, &[descriptor(at.0, len, flags, 0)])
                .unwrap();
            if index == TRANSMIT {
                assert_eq!(network.wire.receive_udp(7002), name.as_bytes());
            } else {
                network
                    .wire
                    .send(packet::PLAIN, &packet::udp(7003, name.as_bytes()));
                assert!(victim.any_used(SOON).unwrap(), "queue {index}, {name}");
            }
        }
    }
    let stderr = network.daemon.stderr();
    assert!(stderr.contains("the guest broke a rule"), "{stderr}");
    network.assert_serves();
}

#[test]
fn broken_rings_stop_their_queue_alone() {
    let mut network = Network::start("net-rings");
    for index in [RECEIVE, TRANSMIT] {
        for (name, attack) in BAD_RINGS {
            let before = network.daemon.stderr().matches("queue stopped").count();
            let (mut front_end, _victim) = attacked(&mut network, index, attack);
            // One chain after the other completes on the transmit side: twice is no fault there.
            if (index, name) != (TRANSMIT, "head made available twice") {
                let stopped = |n: &Network| n.daemon.stderr().matches("queue stopped").count();
                let deadline = std::time::Instant::now() + SOON;
                while stopped(&network) == before {
                    assert!(
                        std::time::Instant::now() < deadline,
                        "queue {index}, {name}"
                    );
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            other_direction_works(&mut network, &mut front_end, index);
            front_end.stop_queue(index).unwrap();
        }
    }
    network.assert_serves();
}

#[test]
fn receive_buffers_too_short_for_a_header_are_given_back() {
    let mut network = Network::start("net-short");
    let mut guest = network.guest(ALL, 8, 11);
    network
        .wire
        .send(packet::PLAIN, &packet::udp(7004, b"nowhere to go"));
    let used = guest.receive.queue_mut().wait_used(SOON).unwrap();
    assert!(used.iter().all(|used| used.len == 0), "{used:?}");
    drop(guest);
    network.assert_serves();
}

#[test]
fn buffers_around_a_faulty_one_come_back_once() {
    let mut network = Network::start("net-around");
    let memory = GuestMemory::with_size(64 << 20).unwrap();
    let mut front_end = network.front_end(ALL, &memory);
    let mut queue = front_end.set_up_queue(RECEIVE, 64).unwrap();
    let at = memory.alloc(4 << 12, 4096).unwrap().0;
    // The third is too short for a header. All are popped, because 64 KiB would not fit.
    for (head, len) in [(0, 100), (1, 100), (2, 4), (3, 100)] {
        let buffer = descriptor(at + (u64::from(head) << 12), len, flag::WRITE, 0);
        queue.submit_raw(head, &[buffer]).unwrap();
    }
    let frame = packet::udp(7007, &[0; 20]);
    network.wire.send(packet::PLAIN, &frame);
    network.wait_metric("guest_faults_total{queue=\"0\"}", 1);
    let next = front_end.stop_queue(RECEIVE).unwrap();
    let mut used = vec![0_u32; 4];
    for done in queue.wait_used(SOON).unwrap() {
        used[usize::try_from(done.id).unwrap()] += 1;
    }
    // Each is either given out again by the ring or was answered, never both, never neither.
    for (head, times) in used.iter().enumerate() {
        let again = u32::from(head >= usize::from(next));
        assert_eq!(
            times + again,
            1,
            "head {head}, ring goes on at {next}, used {used:?}"
        );
    }
    drop(front_end);
    network.assert_serves();
}

#[test]
fn control_buffers_of_any_shape_are_answered() {
    let mut network = Network::start("net-control-shapes");
    let mut guest = network.guest(ALL, 8, 2048);
    let mut control = guest.control(1);
    for (readable, writable) in [
        (&[][..], &[1][..]),
        (&[1], &[1]),
        (&[1, 1, 1], &[]),
        (&[4, 0, 1, 0], &[1, 1, 4000]),
    ] {
        let ticket = control.exchange().submit(&[readable], writable).unwrap();
        let reply = control.exchange().wait(ticket).unwrap();
        let ack = reply.buffers.first().map(|buffer| buffer[0]);
        assert_ne!(ack, Some(0), "{readable:?}");
    }
    drop((control, guest));
    network.assert_serves();
}

#[test]
fn a_guest_cannot_flood_the_log() {
    let network = Network::start("net-flood");
    let mut guest = network.guest(ALL, 64, 2048);
    for _ in 0..2000 {
        guest.transmit.send(packet::PLAIN, &[0; 5]).unwrap();
    }
    let lines = network.daemon.stderr().lines().count();
    assert!(lines < 40, "{lines} log lines");
}

#[test]
fn garbage_on_the_socket_ends_the_connection_and_nothing_else() {
    let mut network = Network::start("net-garbage");
    let socket = network.socket.clone();
    for seed in 0..16 {
        garbage::random(&socket, seed, 300, MOMENT).unwrap();
    }
    let reactions = [
        ("version", garbage::wrong_version(&socket, MOMENT)),
        ("request", garbage::unknown_request(&socket, MOMENT)),
        ("size", garbage::huge_size(&socket, MOMENT)),
        ("no descriptors", garbage::missing_fds(&socket, MOMENT)),
        ("descriptors", garbage::surplus_fds(&socket, 8, MOMENT)),
    ];
    for (name, reaction) in reactions {
        let reaction = reaction.unwrap();
        assert!(
            !matches!(reaction, Reaction::Answered(_)),
            "{name}: {reaction:?}"
        );
    }
    garbage::partial_then_close(&socket, MOMENT).unwrap();
    network.assert_serves();
}

#[test]
fn a_front_end_that_goes_in_the_middle_is_no_harm() {
    let mut network = Network::start("net-middle");
    for round in 0..10 {
        let mut guest = network.guest(ALL, 64, 2048);
        for n in 0..50 {
            let frame = packet::udp(7005, &lab::pattern(n, 1000));
            guest.transmit.submit(packet::PLAIN, &frame).unwrap();
            network.wire.send(packet::PLAIN, &frame);
        }
        if round % 2 == 0 {
            guest.front_end.enable_queue(0, false).unwrap();
        }
        drop(guest);
    }
    network.assert_serves();
}

#[test]
fn queues_outside_the_shared_memory_are_refused() {
    let mut network = Network::start("net-memory");
    let memory =
        GuestMemory::new(&[(GuestAddress(0), 1 << 20), (GuestAddress(1 << 32), 8 << 20)]).unwrap();
    let regions = memory.regions().unwrap();
    let mut front_end = FrontEnd::connect(&network.socket, SOON).unwrap();
    let protocol = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
    front_end.handshake(ALL, protocol).unwrap();
    front_end.set_mem_regions(&memory, &regions[..1]).unwrap();
    let mut transmit = Transmit::new(front_end.set_up_queue(1, 64).unwrap());
    while memory.alloc(64, 64).unwrap().0 < 1 << 32 {}
    // From here on buffers and rings lie in the second region, which is not shared.
    for _ in 0..50 {
        let frame = packet::udp(7006, b"from nowhere");
        transmit.send(packet::PLAIN, &frame).unwrap();
    }
    network.wait_metric("guest_faults_total{queue=\"1\"}", 50);
    assert!(front_end.set_up_queue(0, 64).is_err());
    drop(front_end);
    network.assert_serves();
}

#[test]
fn a_front_end_that_shrinks_its_memory_loses_its_queues_and_nothing_else() {
    let mut network = Network::start("net-shrunk");
    let mut guest = network.guest(ALL, 32, 2048);
    let frame = packet::udp(7010, b"before");
    guest.transmit.send(packet::PLAIN, &frame).unwrap();
    let queue = guest.transmit.exchange().queue();
    queue.memory().set_file_len(0).unwrap();
    queue.kick_always().unwrap();
    let deadline = std::time::Instant::now() + SOON;
    while !network
        .daemon
        .stderr()
        .contains("took memory of its guest away")
    {
        assert!(
            std::time::Instant::now() < deadline,
            "{}",
            network.daemon.stderr()
        );
        std::thread::sleep(MOMENT / 50);
    }
    drop(guest);
    network.assert_serves();
}
