//! Front ends that listen, taps in other network namespaces, and the driver's filters.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use lab::frontend::net::{ACK_OK, Receive, Transmit};
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::netns::{NetNamespace, Tap};
use lab::process::Daemon;
use lab::scratch::Scratch;
use network::{ALL, Network, PROGRAM, SOON, TAP, packet};

#[test]
fn a_front_end_that_listens_is_connected_to_again_and_again() {
    let scratch = Scratch::new("net-client").unwrap();
    let namespace = NetNamespace::new().unwrap();
    namespace.add_tap(TAP, &Tap::default()).unwrap();
    let socket = scratch.join("front-end.sock");
    let builder = Daemon::builder(PROGRAM).args(["--tap", TAP, "--client", "--socket-path"]);
    // Started before the front end is there.
    let mut daemon = namespace.spawn(builder.arg(&socket)).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let listener = UnixListener::bind(&socket).unwrap();
    for _ in 0..3 {
        let (stream, _) = listener.accept().unwrap();
        let mut front_end = FrontEnd::from_stream(stream).unwrap();
        let memory = GuestMemory::with_size(16 << 20).unwrap();
        let protocol = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
        front_end
            .handshake(ALL | features::VERSION_1, protocol)
            .unwrap();
        front_end.set_mem_table(&memory).unwrap();
        let mut transmit = Transmit::new(front_end.set_up_queue(1, 64).unwrap());
        transmit
            .send(packet::PLAIN, &packet::udp(1, b"hello"))
            .unwrap();
    }
    let exit = daemon.terminate(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(socket.exists(), "the socket is the front end's");
}

#[test]
fn a_tap_is_made_in_another_namespace_and_goes_with_the_daemon() {
    let scratch = Scratch::new("net-netns").unwrap();
    let namespace = NetNamespace::new().unwrap();
    let mut inside = namespace
        .spawn(Daemon::builder("sleep").arg("1000"))
        .unwrap();
    let socket = scratch.join("net.sock");
    let netns = format!("/proc/{}/ns/net", inside.pid());
    // The daemon itself stays outside.
    let mut daemon = Daemon::builder(PROGRAM)
        .args([
            "--tap",
            "far-tap",
            "--mtu",
            "4000",
            "--netns",
            &netns,
            "--socket-path",
        ])
        .arg(&socket)
        .spawn()
        .unwrap();
    daemon.wait_listening(&socket, SOON).unwrap();
    let links = namespace.ip("link show far-tap").unwrap();
    assert!(links.contains("mtu 4000"), "{links}");
    namespace.ip("link set far-tap up").unwrap();
    let memory = GuestMemory::with_size(16 << 20).unwrap();
    let mut front_end = FrontEnd::connect(&socket, SOON).unwrap();
    let protocol = ProtocolFeatures::CONFIG | ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
    front_end
        .handshake(ALL | features::VERSION_1, protocol)
        .unwrap();
    front_end.set_mem_table(&memory).unwrap();
    assert_eq!(front_end.get_config(10, 2).unwrap(), 4000_u16.to_le_bytes());
    let mut receive = Receive::new(front_end.set_up_queue(0, 64).unwrap(), 2048);
    receive.post(32).unwrap();
    let mut transmit = Transmit::new(front_end.set_up_queue(1, 64).unwrap());
    transmit
        .send(packet::PLAIN, &packet::udp(1, b"hello"))
        .unwrap();
    let counted = namespace.ip("-s link show far-tap").unwrap();
    assert!(counted.contains("RX:"), "{counted}");
    daemon.terminate(SOON).unwrap();
    // The kernel takes the daemon's io_uring apart after the process has gone.
    let deadline = Instant::now() + SOON;
    while namespace.ip("link show far-tap").is_ok() {
        assert!(Instant::now() < deadline, "the tap is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
    inside.terminate(SOON).unwrap();
}

#[test]
fn a_namespace_that_is_not_there_is_named() {
    let mut daemon = Daemon::builder(PROGRAM)
        .args([
            "--tap",
            "t",
            "--netns",
            "no-such-netns",
            "--socket-path",
            "/tmp/never.sock",
        ])
        .spawn()
        .unwrap();
    let exit = daemon.wait_exit(SOON).unwrap();
    let said = "cannot enter network namespace /run/netns/no-such-netns";
    assert!(exit.stderr.contains(said), "{}", exit.stderr);
}

#[test]
fn the_driver_gets_only_what_it_wants() {
    const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 9];
    let mut network = Network::start("net-filters");
    let mut guest = network.guest(ALL, 128, 2048);
    let mut control = guest.control(1);
    // Chosen by the driver: the bridge has seen the one of --mac on the wire's side.
    let own = [2, 0, 0, 0, 0, 0x42];
    assert_eq!(control.command(1, 1, &own).unwrap(), ACK_OK);
    let frame_to = |to: [u8; 6], port: u16| {
        let mut frame = packet::udp(port, b"x");
        frame[..6].copy_from_slice(&to);
        // The bridge must not think that the guest is on the wire's side.
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x55]);
        frame
    };
    let tagged = |to: [u8; 6], port: u16, vlan: u16| {
        let mut frame = frame_to(to, port);
        let [high, low] = vlan.to_be_bytes();
        frame.splice(12..12, [0x81, 0, high, low]);
        frame
    };
    // A bridge floods what it does not know, and passes tagged frames.
    let mut arrives = |guest: &mut network::Guest, frame: &[u8], mark: u16| {
        network.wire.send(packet::PLAIN, frame);
        network
            .wire
            .send(packet::PLAIN, &packet::udp(mark, b"mark"));
        let mut before = 0;
        loop {
            let received = guest.receive.receive(SOON).unwrap();
            assert!(!received.is_empty(), "the mark was lost");
            for received in received {
                match packet::udp_port(&received.frame) {
                    Some(port) if port == mark => return before > 0,
                    _ if received.frame == frame => before += 1,
                    _ => {}
                }
            }
        }
    };
    let other = [2, 0, 0, 0, 0, 0x99];
    assert!(
        arrives(&mut guest, &frame_to(other, 1), 100),
        "promiscuous at first"
    );
    assert_eq!(control.command(0, 0, &[0]).unwrap(), ACK_OK);
    let table = |unicast: &[[u8; 6]], multicast: &[[u8; 6]]| {
        let list = |macs: &[[u8; 6]]| {
            let count = u32::try_from(macs.len()).unwrap().to_le_bytes();
            [&count[..], &macs.concat()].concat()
        };
        [list(unicast), list(multicast)].concat()
    };
    let mut set_table = |unicast: &[[u8; 6]], multicast: &[[u8; 6]]| {
        let data = table(unicast, multicast);
        assert_eq!(control.command(1, 0, &data).unwrap(), ACK_OK);
    };
    set_table(&[], &[]);
    assert!(!arrives(&mut guest, &frame_to(other, 1), 101));
    assert!(!arrives(&mut guest, &frame_to(GROUP, 1), 102));
    assert!(arrives(&mut guest, &frame_to(own, 1), 103));
    set_table(&[other], &[GROUP]);
    assert!(arrives(&mut guest, &frame_to(other, 1), 104));
    assert!(arrives(&mut guest, &frame_to(GROUP, 1), 105));
    assert!(!arrives(&mut guest, &tagged(own, 1, 7), 106));
    assert_eq!(control.command(2, 0, &7_u16.to_le_bytes()).unwrap(), ACK_OK);
    assert!(arrives(&mut guest, &tagged(own, 1, 7), 107));
    assert!(!arrives(&mut guest, &tagged(own, 1, 8), 108));
    assert_eq!(control.command(2, 1, &7_u16.to_le_bytes()).unwrap(), ACK_OK);
    assert!(!arrives(&mut guest, &tagged(own, 1, 7), 109));
    network.wait_metric(&network.drops(0, "receive", "unwanted"), 5);
}
