use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use super::*;

fn forward_to(server: &TcpListener) -> (Forwarder, TcpStream) {
    let guest = server.local_addr().unwrap().port();
    let publish = [Publish { host: 0, guest }];
    let forwarder = Forwarder::start_to(&publish, Ipv4Addr::LOCALHOST, || Ok(())).unwrap();
    let host = forwarder.published[0].host;
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, host)).unwrap();
    (forwarder, client)
}

#[test]
fn an_answer_still_comes_after_the_question_ended() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_forwarder, mut client) = forward_to(&server);
    let (mut guest, _) = server.accept().unwrap();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut question = String::new();
    guest.read_to_string(&mut question).unwrap();
    guest
        .write_all(question.replace("question", "answer").as_bytes())
        .unwrap();
    drop(guest);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

#[test]
fn a_reset_in_the_guest_is_no_end() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_forwarder, mut client) = forward_to(&server);
    let (mut guest, _) = server.accept().unwrap();
    guest.write_all(b"half of an ans").unwrap();
    let mut half = [0; 14];
    client.read_exact(&mut half).unwrap();
    set_socket_linger(&guest, Some(Duration::ZERO)).unwrap();
    drop(guest);
    let error = client.read(&mut half).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_forwarder, mut client) = forward_to(&server);
    let (mut guest, _) = server.accept().unwrap();
    let sent: Vec<u8> = (0..16_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let expected = sent.clone();
    let writer = thread::spawn(move || client.write_all(&sent).map(|()| drop(client)));
    thread::sleep(std::time::Duration::from_millis(200));
    assert!(
        !writer.is_finished(),
        "nobody reads, so the writer must wait"
    );
    let mut received = Vec::new();
    guest.read_to_end(&mut received).unwrap();
    writer.join().unwrap().unwrap();
    assert!(received == expected);
}

#[test]
fn a_closed_port_closes_the_connection() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap();
    let (_forwarder, _client) = forward_to(&server);
    drop(server);
    let publish = [Publish {
        host: 0,
        guest: port.port(),
    }];
    let forwarder = Forwarder::start_to(&publish, Ipv4Addr::LOCALHOST, || Ok(())).unwrap();
    let mut client =
        TcpStream::connect((Ipv4Addr::LOCALHOST, forwarder.published[0].host)).unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
}

#[test]
fn the_port_is_free_after_the_forwarder() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (forwarder, client) = forward_to(&server);
    let port = forwarder.published[0].host;
    drop((forwarder, client));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
        assert!(
            std::time::Instant::now() < deadline,
            "the listener is still there"
        );
        thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_taken_port_is_named() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = server.local_addr().unwrap().port();
    let publish = [Publish { host, guest: 1 }];
    let error = Forwarder::start_to(&publish, Ipv4Addr::LOCALHOST, || Ok(())).unwrap_err();
    assert!(error.to_string().contains(&host.to_string()), "{error}");
}
