//! Bytes both ways, ends, credit: a driver of our own against the host's programs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use lab::frontend::vsock::op;
use support::guest::{Guest, Id, RECEIVE, SEND, Socket};
use support::{Host, SOON, answered};

const MOMENT: Duration = Duration::from_millis(200);
const LEN: usize = 100_000_000;

/// A connection that a program begins.
fn from_host(host: &Host, guest: &mut Guest, port: u32) -> (UnixStream, Id) {
    guest.listening.insert(port);
    let client = host.ask(port);
    let id = guest.accept();
    assert!(answered(&client));
    (client, id)
}

/// A connection that the guest begins.
fn from_guest(host: &Host, guest: &mut Guest, port: u32) -> (UnixStream, Id) {
    let listener = host.listen(port);
    let id = guest.connect(port);
    guest.wait("a response", |guest| guest.sockets[&id].connected);
    let server = listener.accept().unwrap().0;
    server.set_read_timeout(Some(SOON)).unwrap();
    (server, id)
}

fn at_end(mut stream: &UnixStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}

#[test]
fn either_side_connects_and_either_is_refused() {
    let host = Host::start("vsock-connect");
    let mut guest = Guest::new(&host);
    for (mut stream, id) in [
        from_host(&host, &mut guest, 80),
        from_guest(&host, &mut guest, 81),
    ] {
        stream.write_all(b"to the guest").unwrap();
        assert_eq!(guest.read(id, 12), b"to the guest");
        guest.send_all(id, b"to the host");
        let mut got = [0; 11];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"to the host");
    }
    let refused = host.ask(82);
    guest.wait("a refusal", |_| {
        host.metric("ringside_vsock_refused_total") == 1
    });
    assert!(!answered(&refused));
    let id = guest.connect(83);
    guest.wait("a reset", |guest| guest.sockets[&id].reset);
    assert_eq!(host.metric("ringside_vsock_begun_total"), 4);
    assert_eq!(host.metric("ringside_vsock_refused_total"), 2);
    assert_eq!(host.metric("ringside_vsock_connections"), 2);
    host.check();
}

/// What a program sends right behind its line, before the guest has answered, is the guest's.
#[test]
fn a_program_need_not_wait_for_the_answer() {
    let host = Host::start("vsock-eager");
    let mut guest = Guest::new(&host);
    guest.listening.insert(80);
    let mut client = UnixStream::connect(host.scratch.join("v")).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(b"CONN").unwrap();
    assert!(!guest.pump(MOMENT));
    client.write_all(b"ECT 80\nhello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let id = guest.accept();
    assert!(answered(&client));
    assert_eq!(guest.read_to_end(id), b"hello");
    // It hangs up before the guest has answered.
    let impatient = host.ask(80);
    host.wait_metric("ringside_vsock_begun_total", 2);
    drop(impatient);
    let id = guest.accept();
    guest.wait("the end", |guest| {
        let socket = &guest.sockets[&id];
        socket.reset || socket.shut == SEND | RECEIVE
    });
    guest.say(id, op::RST, 0);
    host.wait_metric("ringside_vsock_connections", 1);
    // It talks of something else.
    let mut other = UnixStream::connect(host.scratch.join("v")).unwrap();
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    // Its last bytes were not read: the end may be told as a reset.
    assert!(matches!(other.read(&mut [0]), Ok(0) | Err(_)));
    host.check();
}

#[test]
fn a_hundred_megabytes_each_way() {
    let host = Host::start("vsock-bulk");
    let mut guest = Guest::new(&host);
    let (stream, id) = from_host(&host, &mut guest, 80);
    let (there, back) = (lab::pattern(1, LEN), lab::pattern(2, LEN));
    thread::scope(|scope| {
        let (mut reader, mut writer) = (stream.try_clone().unwrap(), stream);
        let there = &there;
        scope.spawn(move || {
            writer.write_all(there).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let got = scope.spawn(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).unwrap();
            got
        });
        let (mut received, mut sent) = (Vec::new(), 0);
        while sent < LEN || guest.sockets[&id].shut & SEND == 0 {
            let count = guest.send(id, &back[sent..]);
            sent += count;
            if sent == LEN && count > 0 {
                guest.say(id, op::SHUTDOWN, SEND);
            }
            let wait = if count == 0 { SOON } else { Duration::ZERO };
            assert!(guest.pump(wait) || count > 0, "neither bytes nor credit");
            received.extend(guest.take(id));
        }
        assert!(received == *there, "bytes changed on the way to the guest");
        assert!(got.join().unwrap() == back, "bytes changed on the way back");
    });
    let read = host.metric("ringside_bytes_in_total");
    assert_eq!(read, LEN as u64);
    assert_eq!(host.metric("ringside_bytes_out_total"), LEN as u64);
    host.check();
}

/// The end of one direction leaves the other alone, both ways round.
#[test]
fn half_of_a_connection_is_closed() {
    let host = Host::start("vsock-half");
    let mut guest = Guest::new(&host);
    let piece = lab::pattern(3, 1 << 20);
    // The program ends its input and still reads all of the answer.
    let (mut stream, id) = from_host(&host, &mut guest, 80);
    stream.write_all(b"input").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.read_to_end(id), b"input");
    assert_eq!(guest.sockets[&id].shut, SEND);
    thread::scope(|scope| {
        let got = scope.spawn(|| {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            got
        });
        guest.send_all(id, &piece);
        guest.say(id, op::SHUTDOWN, SEND | RECEIVE);
        assert!(got.join().unwrap() == piece);
    });
    guest.wait("a reset", |guest| guest.sockets[&id].reset);
    host.wait_metric("ringside_vsock_connections", 0);
    // The guest ends its direction and still gets all that the program sends.
    let (mut stream, id) = from_guest(&host, &mut guest, 81);
    guest.send_all(id, b"question");
    guest.say(id, op::SHUTDOWN, SEND);
    let mut question = Vec::new();
    stream.read_to_end(&mut question).unwrap();
    assert_eq!(question, b"question");
    thread::scope(|scope| {
        scope.spawn(|| {
            stream.write_all(&piece).unwrap();
            drop(stream);
        });
        assert!(guest.read_to_end(id) == piece);
    });
    guest.wait("the whole end", |guest| {
        guest.sockets[&id].shut == SEND | RECEIVE
    });
    guest.say(id, op::RST, 0);
    host.wait_metric("ringside_vsock_connections", 0);
    host.check();
}

#[test]
fn a_program_that_went_away_is_told_to_the_guest() {
    let host = Host::start("vsock-gone");
    let mut guest = Guest::new(&host);
    let (mut stream, id) = from_host(&host, &mut guest, 80);
    stream.write_all(b"last words").unwrap();
    drop(stream);
    assert_eq!(guest.read(id, 10), b"last words");
    guest.wait("the whole end", |guest| {
        guest.sockets[&id].shut == SEND | RECEIVE
    });
    // Whoever goes on sending is not stuck.
    guest.send_all(id, &[0; 2 << 20]);
    guest.say(id, op::SHUTDOWN, SEND | RECEIVE);
    guest.wait("a reset", |guest| guest.sockets[&id].reset);
    host.wait_metric("ringside_vsock_connections", 0);
    // A program that only receives no more.
    let (stream, id) = from_host(&host, &mut guest, 80);
    stream.shutdown(Shutdown::Read).unwrap();
    guest.send_all(id, b"nobody hears it");
    guest.wait("deafness", |guest| guest.sockets[&id].shut == RECEIVE);
    (&stream).write_all(b"but it speaks").unwrap();
    assert_eq!(guest.read(id, 13), b"but it speaks");
    host.check();
}

/// A guest that closes wants no more; what the program had sent is lost without an error for it.
#[test]
fn a_guest_that_closes_ends_the_program_s_stream_cleanly() {
    let host = Host::start("vsock-closes");
    let mut guest = Guest::new(&host);
    guest.window = 4096;
    let (mut stream, id) = from_host(&host, &mut guest, 80);
    stream.write_all(&[1; 100_000]).unwrap();
    guest.send_all(id, b"enough");
    guest.say(id, op::SHUTDOWN, SEND | RECEIVE);
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"enough");
    let refused = stream.write(b"x").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
    host.check();
}

/// Neither side runs over the other, and nothing is lost when it goes on.
#[test]
fn whoever_is_slow_holds_up_the_other() {
    let host = Host::start("vsock-slow");
    let mut guest = Guest::new(&host);
    let (stream, id) = from_host(&host, &mut guest, 80);
    let piece = lab::pattern(4, 4 << 20);
    // The program does not read: the guest runs out of credit.
    let mut sent = 0;
    loop {
        let count = guest.send(id, &piece[sent..]);
        sent += count;
        if count == 0 && !guest.pump(MOMENT) {
            break;
        }
    }
    assert!(sent < 1 << 20, "{sent} bytes wait for the program");
    assert_eq!(guest.sockets[&id].credit(), 0);
    thread::scope(|scope| {
        let mut reader = &stream;
        let got = scope.spawn(move || {
            let mut got = vec![0; 4 << 20];
            reader.read_exact(&mut got).unwrap();
            got
        });
        guest.send_all(id, &piece[sent..]);
        assert!(got.join().unwrap() == piece);
    });
    // The guest does not take: the program's writes find no room.
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    loop {
        match (&stream).write(&piece[sent..]) {
            Ok(count) => sent += count,
            Err(_) if guest.pump(MOMENT) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    assert!(sent < 1 << 20, "{sent} bytes wait for the guest");
    stream.set_nonblocking(false).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| (&stream).write_all(&piece[sent..]).unwrap());
        assert!(guest.read(id, piece.len()) == piece);
    });
    assert!(host.metric("ringside_vsock_held_up_total") >= 2);
    host.check();
}

/// What a guest had sent reaches a slow program although the guest has forgotten the connection.
#[test]
fn the_last_bytes_outlive_the_guest_s_socket() {
    let host = Host::start("vsock-linger");
    let mut guest = Guest::new(&host);
    let (mut stream, id) = from_host(&host, &mut guest, 80);
    let piece = lab::pattern(5, 4 << 20);
    let mut sent = 0;
    loop {
        let count = guest.send(id, &piece[sent..]);
        sent += count;
        if count == 0 && !guest.pump(MOMENT) {
            break;
        }
    }
    guest.say(id, op::SHUTDOWN, SEND | RECEIVE);
    // Linux waits eight seconds for the answer, then says this.
    guest.say(id, op::RST, 0);
    assert_eq!(host.metric("ringside_vsock_connections"), 1);
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == piece[..sent]);
    host.wait_metric("ringside_vsock_connections", 0);
    assert!(!guest.pump(MOMENT), "a reset was answered");
    host.check();
}

#[test]
fn as_many_connections_as_may_be_and_not_one_more() {
    const LIMIT: u32 = 300;
    let host = Host::start_with("vsock-many", |daemon| {
        daemon.args(["--connections", &LIMIT.to_string()])
    });
    let mut guest = Guest::new(&host);
    let mut pairs = Vec::new();
    for n in 0..LIMIT / 2 {
        pairs.push(from_host(&host, &mut guest, 80));
        pairs.push(from_guest(&host, &mut guest, 1000 + n));
    }
    assert!(at_end(
        &UnixStream::connect(host.scratch.join("v")).unwrap()
    ));
    let listener = host.listen(5);
    let id = guest.connect(5);
    guest.wait("a reset", |guest| guest.sockets[&id].reset);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
    assert_eq!(host.metric("ringside_vsock_turned_away_total"), 2);
    // All of them work, at the same time.
    for (number, (stream, id)) in pairs.iter_mut().enumerate() {
        let text = format!("this is {number:5}");
        stream.write_all(text.as_bytes()).unwrap();
        guest.send_all(*id, text.as_bytes());
    }
    for (number, (stream, id)) in pairs.iter_mut().enumerate() {
        let text = format!("this is {number:5}");
        assert_eq!(guest.read(*id, text.len()), text.as_bytes());
        let mut got = vec![0; text.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, text.as_bytes());
    }
    // One ends, another begins.
    let (stream, _) = pairs.pop().unwrap();
    drop(stream);
    let (_, id) = pairs.pop().unwrap();
    guest.say(id, op::RST, 0);
    host.wait_metric("ringside_vsock_connections", u64::from(LIMIT) - 1);
    from_host(&host, &mut guest, 80);
    host.check();
}

/// Of two posts that come at once the first turns out to need nothing.
#[test]
fn what_needs_nothing_holds_up_nobody() {
    let host = Host::start("vsock-posts");
    let mut guest = Guest::new(&host);
    let (stream, first) = from_host(&host, &mut guest, 80);
    drop(stream);
    guest.wait("the whole end", |guest| {
        guest.sockets[&first].shut == SEND | RECEIVE
    });
    std::thread::sleep(MOMENT);
    // Nobody takes the bytes, which the guest knows already; and a new connection.
    let mut bytes = guest.header(first, op::RW);
    bytes.len = 1;
    let listener = host.listen(81);
    let second = (5000, 81);
    guest.sockets.insert(second, Socket::default());
    let request = guest.header(second, op::REQUEST);
    let transmit = guest.driver.transmit();
    transmit.stage(&[&bytes.to_bytes(), b"x"], &[]).unwrap();
    transmit.submit(&[&request.to_bytes()], &[]).unwrap();
    guest.wait("a response", |guest| guest.sockets[&second].connected);
    assert!(listener.accept().is_ok());
}
