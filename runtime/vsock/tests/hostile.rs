//! Guests that break the rules: a reset or nothing, and everybody else is served on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use lab::frontend::vsock::{Header, op};
use support::guest::{Guest, Id, SEND};
use support::{CID, Host, SOON, answered};

const MOMENT: Duration = Duration::from_millis(200);

fn connected(host: &Host, guest: &mut Guest) -> (UnixStream, Id) {
    guest.listening.insert(80);
    let client = host.ask(80);
    let id = guest.accept();
    assert!(answered(&client));
    (client, id)
}

/// The connection carries bytes both ways.
fn works(guest: &mut Guest, stream: &mut UnixStream, id: Id) {
    stream.write_all(b"ping").unwrap();
    assert_eq!(guest.read(id, 4), b"ping");
    guest.send_all(id, b"pong");
    let mut got = [0; 4];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"pong");
}

/// What a bad packet is answered by.
#[derive(Debug, PartialEq)]
enum Answer {
    Reset,
    Nothing,
}

#[test]
fn bad_packets_are_answered_and_nobody_else_is_harmed() {
    let host = Host::start("vsock-bad-packets");
    let mut guest = Guest::new(&host);
    let (mut stream, id) = connected(&host, &mut guest);
    let stranger: Id = (5, 6);
    let base = guest.header(stranger, op::RW);
    let cases: Vec<(&str, Header, usize, Answer)> = vec![
        ("no connection", base, 0, Answer::Reset),
        (
            "a reset of nothing",
            Header {
                op: op::RST,
                ..base
            },
            0,
            Answer::Nothing,
        ),
        (
            "another guest's id",
            Header {
                src_cid: CID + 1,
                ..base
            },
            0,
            Answer::Nothing,
        ),
        (
            "the host's id",
            Header { src_cid: 2, ..base },
            0,
            Answer::Nothing,
        ),
        (
            "to another guest",
            Header {
                dst_cid: 99,
                ..base
            },
            0,
            Answer::Reset,
        ),
        ("a seqpacket", Header { kind: 2, ..base }, 0, Answer::Reset),
        ("no operation", Header { op: 0, ..base }, 0, Answer::Reset),
        (
            "an unknown operation",
            Header {
                op: u16::MAX,
                ..base
            },
            0,
            Answer::Reset,
        ),
        (
            "a length beyond the buffer",
            Header {
                len: u32::MAX,
                ..base
            },
            10,
            Answer::Reset,
        ),
        (
            "a response to nothing",
            Header {
                op: op::RESPONSE,
                ..base
            },
            0,
            Answer::Reset,
        ),
        (
            "a shutdown of nothing",
            Header {
                op: op::SHUTDOWN,
                ..base
            },
            0,
            Answer::Reset,
        ),
        (
            "credit for nothing",
            Header {
                op: op::CREDIT_REQUEST,
                ..base
            },
            0,
            Answer::Reset,
        ),
    ];
    for (what, header, len, wanted) in cases {
        guest.driver.send(header, &vec![0; len]).unwrap();
        let wait = if wanted == Answer::Reset {
            SOON
        } else {
            MOMENT
        };
        let answer = match guest.driver.receive(wait).unwrap() {
            None => Answer::Nothing,
            Some(packet) => {
                assert_eq!(packet.header.op, op::RST, "{what}");
                assert_eq!(packet.header.src_port, header.dst_port, "{what}");
                assert_eq!(packet.header.dst_port, header.src_port, "{what}");
                assert_eq!(packet.header.src_cid, header.dst_cid, "{what}");
                Answer::Reset
            }
        };
        assert_eq!(answer, wanted, "{what}");
        works(&mut guest, &mut stream, id);
    }
    assert!(host.metric("ringside_guest_faults_total") >= 7);
}

/// What a connection's state does not allow ends that connection.
#[test]
fn packets_out_of_place_end_their_connection_alone() {
    let host = Host::start("vsock-out-of-place");
    let mut guest = Guest::new(&host);
    let (mut stream, id) = connected(&host, &mut guest);
    type Crime = fn(&mut Guest, Id);
    let crimes: [(&str, Crime); 5] = [
        ("a second response", |guest, id| {
            guest.say(id, op::RESPONSE, 0);
        }),
        ("a second request", |guest, id| {
            guest.say(id, op::REQUEST, 0);
        }),
        ("bytes after the end", |guest, id| {
            guest.say(id, op::SHUTDOWN, SEND);
            guest.send(id, b"more");
        }),
        ("bytes beyond the credit", |guest, id| {
            let header = Header {
                len: 300 << 10,
                ..guest.header(id, op::RW)
            };
            guest.driver.send(header, &vec![7; 300 << 10]).unwrap();
        }),
        ("a length that lies", |guest, id| {
            let header = Header {
                len: 5,
                ..guest.header(id, op::RW)
            };
            guest.driver.send(header, b"four").unwrap();
        }),
    ];
    for (what, crime) in crimes {
        let (mut victim, bad) = connected(&host, &mut guest);
        crime(&mut guest, bad);
        guest.wait(what, |guest| guest.sockets[&bad].reset);
        works(&mut guest, &mut stream, id);
        let mut rest = Vec::new();
        victim.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{what}");
    }
    // A guest that grants what it never got, takes back what it granted, or grants everything.
    for credit in [(0, 0), (10, u32::MAX), (u32::MAX, 1 << 31), (u32::MAX, 0)] {
        let header = Header {
            buf_alloc: credit.0,
            fwd_cnt: credit.1,
            ..guest.header(id, op::CREDIT_UPDATE)
        };
        guest.driver.send(header, &[]).unwrap();
    }
    guest.say(id, op::CREDIT_UPDATE, 0);
    works(&mut guest, &mut stream, id);
    host.wait_metric("ringside_vsock_connections", 1);
}

/// Headers across descriptors, tables, packets of many pieces: all one to us.
#[test]
fn packets_may_lie_in_any_pieces() {
    let host = Host::start("vsock-pieces");
    let mut guest = Guest::new(&host);
    let (mut stream, id) = connected(&host, &mut guest);
    let payload = lab::pattern(9, 1000);
    for pieces in [2, 7, 43, 44, 45, 300] {
        let header = Header {
            len: 1000,
            ..guest.header(id, op::RW)
        };
        let bytes = [header.to_bytes(), payload.clone()].concat();
        let parts: Vec<&[u8]> = bytes.chunks(pieces).collect();
        // More than the queue has descriptors go through a table.
        let transmit = guest.driver.transmit();
        transmit.use_indirect(parts.len() > 100);
        let ticket = transmit.submit(&parts, &[]).unwrap();
        transmit.wait(ticket).unwrap();
        let mut got = vec![0; 1000];
        stream.read_exact(&mut got).unwrap();
        assert!(got == payload, "{pieces}");
    }
    host.check();
}

/// Chains that are no packets and no buffers.
#[test]
fn bad_chains_are_given_back() {
    let mut host = Host::start("vsock-chains");
    let mut guest = Guest::new(&host);
    let (mut stream, id) = connected(&host, &mut guest);
    let buffer = guest.memory.alloc(4096, 4096).unwrap();
    let transmit = guest.driver.transmit();
    let short = transmit.submit(&[&[0; 43]], &[]).unwrap();
    assert_eq!(transmit.wait(short).unwrap().used_len, 0);
    let writable = transmit.submit(&[&[0; 44]], &[100]).unwrap();
    assert_eq!(transmit.wait(writable).unwrap().used_len, 0);
    // Of these the first eats the queue's descriptors: they come last, on a queue that then rests.
    works(&mut guest, &mut stream, id);
    let queue = guest.driver.transmit().queue_mut();
    queue.submit_loop(buffer, 4).unwrap();
    assert!(queue.any_used(SOON).unwrap());
    queue.overflow_avail().unwrap();
    host.daemon_says("queue stopped until it is set up again");
    // What the host sends still arrives.
    stream.write_all(b"one way").unwrap();
    assert_eq!(guest.read(id, 7), b"one way");
    assert!(host.metric("ringside_guest_faults_total") >= 3);
}

/// A guest whose receive queue has only buffers that are none.
#[test]
fn receive_buffers_without_room_are_given_back() {
    let host = Host::start("vsock-buffers");
    for len in [1, 43, 44] {
        let mut guest = Guest::with_buffers(&host, 16, len);
        let before = host.metric("ringside_guest_faults_total");
        guest
            .driver
            .send(guest.header((1, 2), op::RW), &[])
            .unwrap();
        let deadline = Instant::now() + SOON;
        while host.metric("ringside_guest_faults_total") < before + 16 {
            assert!(Instant::now() < deadline, "buffers of {len} bytes");
        }
        let used = guest.driver.receive_queue().poll_used().unwrap();
        assert!(used.iter().all(|used| used.len == 0));
    }
    let mut guest = Guest::with_buffers(&host, 16, 45);
    let (mut stream, id) = connected(&host, &mut guest);
    works(&mut guest, &mut stream, id);
}

/// A guest that makes us answer and takes no answer is listened to no more, until it does.
#[test]
fn a_storm_of_packets_without_buffers_for_the_answers() {
    const STORM: usize = 2000;
    let host = Host::start("vsock-storm");
    let mut guest = Guest::with_buffers(&host, 0, 4096);
    let header = guest.header((5, 6), op::RW).to_bytes();
    let transmit = guest.driver.transmit();
    transmit.use_indirect(true);
    let (mut sent, mut done) = (0, 0);
    let deadline = Instant::now() + SOON;
    while done < 256 {
        while sent < STORM && transmit.queue().free_descriptors() > 0 {
            transmit.submit(&[&header], &[]).unwrap();
            sent += 1;
        }
        done += transmit.poll().unwrap().len();
        assert!(Instant::now() < deadline, "{done} of {sent} packets taken");
    }
    std::thread::sleep(MOMENT);
    done += transmit.poll().unwrap().len();
    assert!(done <= 256 + 16, "{done} packets wait for their answer");
    let ticks = host.daemon.cpu_ticks().unwrap();
    std::thread::sleep(MOMENT);
    assert!(host.daemon.cpu_ticks().unwrap() <= ticks + 2, "it spins");
    // It listens again once the answers are taken.
    let mut guest_queue_filled = false;
    let mut resets = 0;
    let deadline = Instant::now() + SOON;
    while resets < STORM {
        if !guest_queue_filled {
            post(&mut guest, 1);
            guest_queue_filled = true;
        }
        let transmit = guest.driver.transmit();
        transmit.poll().unwrap();
        while sent < STORM && transmit.queue().free_descriptors() > 0 {
            transmit.submit(&[&header], &[]).unwrap();
            sent += 1;
        }
        while let Some(packet) = guest.driver.receive(Duration::from_millis(1)).unwrap() {
            assert_eq!(packet.header.op, op::RST);
            resets += 1;
        }
        assert!(Instant::now() < deadline, "{resets} resets of {STORM}");
    }
}

/// The same with connections that it begins and drops, each of which has a descriptor.
#[test]
fn a_storm_of_connections_without_buffers_for_the_answers() {
    const STORM: u32 = 4000;
    let host = Host::start_with("vsock-storm-open", |daemon| {
        daemon.args(["--connections", "16"])
    });
    let listener = host.listen(5);
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let mut guest = Guest::with_buffers(&host, 0, 4096);
    guest.driver.transmit().use_indirect(true);
    let (mut sent, mut done, mut last) = (0, 0, Instant::now());
    while last.elapsed() < Duration::from_secs(1) {
        while sent < STORM && guest.driver.transmit().queue().free_descriptors() > 0 {
            let op = if sent % 2 == 0 { op::REQUEST } else { op::RST };
            let header = guest.header((20_000 + sent / 2, 5), op).to_bytes();
            guest.driver.transmit().submit(&[&header], &[]).unwrap();
            sent += 1;
        }
        let taken = guest.driver.transmit().poll().unwrap().len();
        if taken > 0 {
            (done, last) = (done + taken, Instant::now());
        }
    }
    // A connection and its end each; and resets, where the listener does not keep up.
    let most = 2 * (16 + 256 + 256) + 32;
    assert!(done <= most, "{done} packets wait for their answers");
    // It listens again once they are taken.
    post(&mut guest, 1);
    let deadline = Instant::now() + SOON;
    while done < sent as usize {
        while guest
            .driver
            .receive(Duration::from_millis(1))
            .unwrap()
            .is_some()
        {}
        done += guest.driver.transmit().poll().unwrap().len();
        assert!(Instant::now() < deadline, "{done} of {sent} packets taken");
    }
}

fn post(guest: &mut Guest, count: u16) {
    guest.driver.post(count).unwrap();
}

/// Connections begun and dropped, thousands of them.
#[test]
fn a_flood_of_connections_leaves_nothing_behind() {
    let host = Host::start_with("vsock-flood", |daemon| daemon.args(["--connections", "64"]));
    let mut guest = Guest::new(&host);
    let listener = host.listen(5);
    let server = std::thread::spawn(move || {
        let mut accepted = 0;
        listener.set_nonblocking(true).unwrap();
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_millis(700) {
            if listener.accept().is_ok() {
                (accepted, last) = (accepted + 1, Instant::now());
            } else {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        accepted
    });
    for n in 0..3000_u32 {
        let id = (20_000 + n, 5);
        guest.say(id, op::REQUEST, 0);
        if n % 3 != 0 {
            guest.say(id, op::RST, 0);
        }
        guest.pump(Duration::ZERO);
    }
    while guest.pump(MOMENT) {}
    assert!(server.join().unwrap() > 64);
    let left = host.metric("ringside_vsock_connections");
    assert!(left <= 64, "{left}");
    for n in 0..3000_u32 {
        guest.say((20_000 + n, 5), op::RST, 0);
    }
    host.wait_metric("ringside_vsock_connections", 0);
    let (mut stream, id) = connected(&host, &mut guest);
    works(&mut guest, &mut stream, id);
    // A flood fills no log.
    let lines = host.daemon.stderr().lines().count();
    assert!(lines < 40, "{lines} lines:\n{}", host.daemon.stderr());
}
