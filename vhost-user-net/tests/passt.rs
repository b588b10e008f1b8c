//! A port on passt's stream socket. The other side is a stand-in that speaks passt's protocol; passt
//! itself has a test of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use lab::frontend::net::{Receive, Transmit};
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::netns::NetNamespace;
use lab::process::Daemon;
use lab::scratch::Scratch;
use network::{ALL, PROGRAM, SOON, next_udp, packet};

struct Site {
    daemon: Daemon,
    listener: UnixListener,
    stream: UnixStream,
    scratch: Scratch,
}

impl Site {
    fn start(test: &str) -> Self {
        let scratch = Scratch::new(test).unwrap();
        let listener = UnixListener::bind(scratch.join("passt")).unwrap();
        let mut daemon = Daemon::builder(PROGRAM)
            .arg("--passt")
            .arg(scratch.join("passt"))
            .arg("--socket-path")
            .arg(scratch.join("net.sock"))
            .spawn()
            .unwrap();
        let stream = accept(&listener);
        daemon
            .wait_listening(&scratch.join("net.sock"), SOON)
            .unwrap();
        Self {
            daemon,
            listener,
            stream,
            scratch,
        }
    }

    fn guest(&self) -> (FrontEnd, Receive, Transmit) {
        let memory = GuestMemory::with_size(64 << 20).unwrap();
        let mut front_end = FrontEnd::connect(&self.scratch.join("net.sock"), SOON).unwrap();
        let protocol =
            ProtocolFeatures::CONFIG | ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
        let agreed = front_end
            .handshake(ALL | features::VERSION_1, protocol)
            .unwrap();
        assert_eq!(agreed.features & 0b11, 0, "no checksum offload with passt");
        front_end.set_mem_table(&memory).unwrap();
        let mut receive = Receive::new(front_end.set_up_queue(0, 256).unwrap(), 2048);
        receive.post(128).unwrap();
        let transmit = Transmit::new(front_end.set_up_queue(1, 256).unwrap());
        (front_end, receive, transmit)
    }
}

fn accept(listener: &UnixListener) -> UnixStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn framed(frame: &[u8]) -> Vec<u8> {
    let len = u32::try_from(frame.len()).unwrap();
    [&len.to_be_bytes()[..], frame].concat()
}

fn next(stream: &mut UnixStream) -> Vec<u8> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut frame).unwrap();
    frame
}

#[test]
fn frames_of_any_size_go_both_ways_however_they_are_cut() {
    let mut site = Site::start("passt-frames");
    let (_front_end, mut receive, mut transmit) = site.guest();
    for len in [1, 100, 1472, 9000, 60_000] {
        let frame = packet::udp(1, &lab::pattern(len as u64, len));
        transmit.send(packet::PLAIN, &frame).unwrap();
        assert_eq!(next(&mut site.stream), frame);
        let bytes = framed(&packet::udp(2, &lab::pattern(len as u64, len)));
        // In three pieces: within the length, and within the frame.
        for piece in [
            &bytes[..2],
            &bytes[2..bytes.len() / 2],
            &bytes[bytes.len() / 2..],
        ] {
            site.stream.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        let frame = next_udp(&mut receive, 2, SOON).unwrap();
        assert_eq!(
            packet::udp_payload(&frame.frame),
            lab::pattern(len as u64, len)
        );
    }
    let many: Vec<u8> = (0..100_u8)
        .flat_map(|n| framed(&packet::udp(3, &[n; 300])))
        .collect();
    site.stream.write_all(&many).unwrap();
    let mut number = 0;
    while number < 100 {
        for frame in receive.receive(SOON).unwrap() {
            assert_eq!(packet::udp_payload(&frame.frame), [number; 300]);
            number += 1;
        }
    }
}

#[test]
fn a_partner_that_does_not_read_costs_frames_and_no_frame_is_torn() {
    for stops in [false, true] {
        let mut site = Site::start("passt-full");
        let (mut front_end, _receive, mut transmit) = site.guest();
        // Longer than what a socket takes at once: of the last one it takes a part.
        let frame = packet::udp(1, &lab::pattern(1, 60_000));
        for _ in 0..200 {
            transmit.send(packet::PLAIN, &frame).unwrap();
        }
        if stops {
            let base = front_end.stop_queue(1).unwrap();
            let queue = transmit.exchange().queue();
            front_end.attach_queue(queue, base).unwrap();
        }
        // What arrived is whole, and what is sent afterwards comes behind it.
        let last = packet::udp(9, b"the last one");
        let mut whole = 0;
        let deadline = Instant::now() + SOON;
        loop {
            assert!(Instant::now() < deadline);
            if whole >= 2 {
                transmit.send(packet::PLAIN, &last).unwrap();
            }
            let got = next(&mut site.stream);
            if got == last {
                break;
            }
            assert!(got == frame, "{} bytes of another frame", got.len());
            whole += 1;
        }
        assert!(whole < 200, "nothing was lost");
    }
}

#[test]
fn a_frame_of_which_a_stopped_queue_had_read_a_part_arrives_whole() {
    let mut site = Site::start("passt-stop");
    let (mut front_end, mut receive, _transmit) = site.guest();
    for n in 0..5_u8 {
        let first = framed(&packet::udp(2, &[n; 100]));
        let second = framed(&packet::udp(3, &[n; 2000]));
        let (part, rest) = second.split_at(1000);
        // Whoever has read the first frame has read the part behind it.
        site.stream.write_all(&[&first[..], part].concat()).unwrap();
        assert!(next_udp(&mut receive, 2, SOON).is_some());
        let base = front_end.stop_queue(0).unwrap();
        front_end.attach_queue(receive.queue_mut(), base).unwrap();
        site.stream.write_all(rest).unwrap();
        let frame = next_udp(&mut receive, 3, SOON).unwrap();
        assert_eq!(packet::udp_payload(&frame.frame), [n; 2000]);
    }
}

#[test]
fn a_frame_in_more_pieces_than_one_call_takes_is_dropped_and_the_next_one_goes() {
    let mut site = Site::start("passt-pieces");
    let (mut front_end, _receive, mut transmit) = site.guest();
    let frame = packet::udp(1, &[1; 970]);
    let bytes = [&packet::PLAIN.to_bytes()[..], &frame].concat();
    let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    // As many as an indirect table may have; the length before the frame is one more.
    assert_eq!(pieces.len(), 1024);
    let exchange = transmit.exchange();
    exchange.use_indirect(true);
    let ticket = exchange.submit(&pieces, &[]).unwrap();
    exchange.wait(ticket).unwrap();
    let frame = packet::udp(1, b"in one piece");
    transmit.send(packet::PLAIN, &frame).unwrap();
    assert_eq!(next(&mut site.stream), frame);
    front_end.stop_queue(1).unwrap();
}

#[test]
fn passt_may_go_and_come_back() {
    let mut site = Site::start("passt-back");
    let (_front_end, mut receive, mut transmit) = site.guest();
    for _ in 0..2 {
        site.stream.shutdown(std::net::Shutdown::Both).unwrap();
        site.listener.set_nonblocking(true).unwrap();
        let frame = packet::udp(1, b"lost or not");
        let deadline = Instant::now() + SOON;
        let stream = loop {
            assert!(Instant::now() < deadline, "the daemon does not come back");
            transmit.send(packet::PLAIN, &frame).unwrap();
            if let Ok((stream, _)) = site.listener.accept() {
                break stream;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        site.stream = stream;
        assert_eq!(next(&mut site.stream), frame);
        site.stream
            .write_all(&framed(&packet::udp(2, b"back")))
            .unwrap();
        assert!(next_udp(&mut receive, 2, SOON).is_some());
    }
    let stderr = site.daemon.stderr();
    assert_eq!(stderr.matches("passt has gone").count(), 2, "{stderr}");
}

#[test]
fn nonsense_from_the_other_side_ends_its_connection_only() {
    let mut site = Site::start("passt-nonsense");
    let (_front_end, mut receive, mut transmit) = site.guest();
    site.stream.write_all(&[0xff; 64]).unwrap();
    let mut rest = Vec::new();
    site.stream.read_to_end(&mut rest).unwrap();
    let frame = packet::udp(1, b"again");
    let deadline = Instant::now() + SOON;
    site.listener.set_nonblocking(true).unwrap();
    let (mut stream, _) = loop {
        if let Ok(accepted) = site.listener.accept() {
            break accepted;
        }
        assert!(Instant::now() < deadline);
        transmit.send(packet::PLAIN, &frame).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    };
    stream
        .write_all(&framed(&packet::udp(2, b"sense")))
        .unwrap();
    assert!(next_udp(&mut receive, 2, SOON).is_some());
    assert!(site.daemon.is_running());
}

#[test]
fn nobody_at_the_socket_is_said_in_one_sentence() {
    let mut daemon = Daemon::builder(PROGRAM)
        .args(["--passt", "/nowhere", "--socket-path", "/tmp/never.sock"])
        .spawn()
        .unwrap();
    let exit = daemon.wait_exit(SOON).unwrap();
    assert!(!exit.status.success());
    assert!(
        exit.stderr
            .contains("cannot connect to passt's socket /nowhere"),
        "{}",
        exit.stderr
    );
}

#[test]
fn passt_itself_answers_for_the_gateway() {
    lab::need::program("passt").unwrap();
    let scratch = Scratch::new("passt-itself").unwrap();
    let namespace = NetNamespace::new().unwrap();
    for arguments in [
        "link add out type veth peer name far",
        "link set out up",
        "link set far up",
        "addr add 192.0.2.10/24 dev out",
        "route add default via 192.0.2.1",
    ] {
        namespace.ip(arguments).unwrap();
    }
    // It gives root up and makes its socket as somebody else.
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(scratch.path(), open).unwrap();
    let socket = scratch.join("passt");
    let passt = Daemon::builder("passt").args(["--foreground", "--socket"]);
    let mut passt = namespace.spawn(passt.arg(&socket)).unwrap();
    passt.wait_listening(&socket, SOON).unwrap();
    let mut daemon = Daemon::builder(PROGRAM)
        .arg("--passt")
        .arg(&socket)
        .arg("--socket-path")
        .arg(scratch.join("net.sock"))
        .spawn()
        .unwrap();
    daemon
        .wait_listening(&scratch.join("net.sock"), SOON)
        .unwrap();
    let memory = GuestMemory::with_size(16 << 20).unwrap();
    let mut front_end = FrontEnd::connect(&scratch.join("net.sock"), SOON).unwrap();
    let protocol = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
    front_end
        .handshake(ALL | features::VERSION_1, protocol)
        .unwrap();
    front_end.set_mem_table(&memory).unwrap();
    let mut receive = Receive::new(front_end.set_up_queue(0, 64).unwrap(), 2048);
    receive.post(32).unwrap();
    let mut transmit = Transmit::new(front_end.set_up_queue(1, 64).unwrap());
    // Who has 192.0.2.1? Tell 192.0.2.10 (RFC 826).
    let own = [2, 0, 0, 0, 0, 7];
    let mut question = [&[0xff; 6][..], &own, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &own].concat();
    question.extend([192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
    transmit.send(packet::PLAIN, &question).unwrap();
    let deadline = Instant::now() + SOON;
    loop {
        assert!(Instant::now() < deadline, "no answer");
        let frames = receive.receive(SOON).unwrap();
        let answered = frames.iter().any(|it| {
            it.frame.get(12..14) == Some(&[8, 6]) && it.frame.get(28..32) == Some(&[192, 0, 2, 1])
        });
        if answered {
            break;
        }
    }
}
