//! Start-up, options, sockets, taps: what can go wrong is said in one sentence.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use lab::frontend::net::{Receive, Transmit};
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures};
use lab::netns::{NetNamespace, Tap};
use lab::process::Daemon;
use lab::scratch::Scratch;
use network::{ALL, Network, PROGRAM, SOON, TAP};

fn says(namespace: &NetNamespace, arguments: &[&str], what: &str) {
    let builder = Daemon::builder(PROGRAM).args(arguments);
    let mut daemon = namespace.spawn(builder).unwrap();
    // Whose tap it is nobody can tell: it might be of one that was killed, and is waited for.
    let exit = daemon.wait_exit(3 * SOON).unwrap();
    assert!(!exit.status.success(), "{arguments:?} was accepted");
    let stderr = exit.stderr;
    assert!(stderr.contains(what), "{arguments:?} gave:\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn wrong_options_are_refused_in_one_sentence() {
    let scratch = Scratch::new("net-options").unwrap();
    let namespace = NetNamespace::new().unwrap();
    let socket = scratch.join("s.sock");
    let file = scratch.file("file", "x").unwrap();
    let (socket, file) = (text(&socket), text(&file));
    let at_socket = |more: &[&'static str], what: &str| {
        let arguments = [&["--socket-path", socket], more].concat();
        says(&namespace, &arguments, what);
    };
    at_socket(&[], "give --tap NAME, --tap-fd FD");
    at_socket(&["--tap", "x", "--tap-fd", "9"], "cannot be used with");
    at_socket(&["--tap-fd", "77"], "77 is not an open descriptor");
    at_socket(&["--tap-fd", "0"], "0 is not an open descriptor");
    at_socket(&["--tap", "sixteen-bytes-xx"], "cannot name an interface");
    at_socket(&["--tap", "lo"], "'lo' exists and is not a tap");
    at_socket(&["--tap", "x", "--mtu", "9"], "9 is not in 68..");
    at_socket(
        &["--tap", "x", "--mac", "1:2"],
        "not the address of a station",
    );
    at_socket(&["--tap", "x", "--queue-pairs", "99"], "between 1 and 31");
    at_socket(&["--tap", "x", "--no-such-option"], "unexpected argument");
    says(
        &namespace,
        &["--tap", "x"],
        "give --socket-path PATH or --fd FD",
    );
    let in_file = ["--tap", "x", "--socket-path", file];
    says(&namespace, &in_file, "exists and is not a socket");
}

#[test]
fn a_tap_of_one_queue_cannot_have_two_pairs() {
    let namespace = NetNamespace::new().unwrap();
    namespace.add_tap(TAP, &Tap::default()).unwrap();
    let arguments = ["--socket-path", "/s", "--tap", TAP, "--queue-pairs", "2"];
    says(&namespace, &arguments, "mode tap multi_queue");
}

#[test]
fn a_multi_queue_tap_can_have_one_pair() {
    let tap = Tap {
        multi_queue: true,
        ..Tap::default()
    };
    let mut network = Network::start_with("net-mq-one", &tap, |daemon| daemon);
    network.assert_serves();
}

#[test]
fn a_tap_or_socket_in_use_is_refused() {
    let mut network = Network::start("net-in-use");
    let socket = network.scratch.join("other.sock");
    let arguments = ["--socket-path", text(&socket), "--tap", TAP];
    let in_use = format!("tap '{TAP}' is in use by another process");
    says(&network.namespace, &arguments, &in_use);
    let arguments = ["--socket-path", text(&network.socket), "--tap", "other"];
    says(
        &network.namespace,
        &arguments,
        "is in use by another process",
    );
    network.assert_serves();
}

#[test]
fn without_permission_the_tap_is_refused_with_advice() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let scratch = Scratch::new("net-permission").unwrap();
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o777)).unwrap();
    // The build directory and /dev/net/tun may be closed to others: a copy, in a namespace where
    // everything but the capability is there.
    let program = scratch.join("vhost-user-net");
    std::fs::copy(PROGRAM, &program).unwrap();
    let output = Command::new(&program)
        .args(["--tap", "not-mine", "--socket-path"])
        .arg(scratch.join("s"))
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    let said = [
        "not permitted to use or make tap 'not-mine'",
        "cannot open /dev/net/tun",
    ];
    assert!(said.iter().any(|what| stderr.contains(what)), "{stderr}");
}

#[test]
fn a_tap_that_is_not_there_is_made_and_goes_with_the_daemon() {
    let scratch = Scratch::new("net-made").unwrap();
    let namespace = NetNamespace::new().unwrap();
    let socket = scratch.join("s.sock");
    let builder = Daemon::builder(PROGRAM)
        .args(["--tap", "made", "--queue-pairs", "3", "--mtu", "4000"])
        .arg("--socket-path")
        .arg(&socket);
    let mut daemon = namespace.spawn(builder).unwrap();
    daemon.wait_stderr("waiting for a front end", SOON).unwrap();
    assert!(namespace.ip("link show made").unwrap().contains("mtu 4000"));
    let exit = daemon.terminate(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(namespace.ip("link show made").is_err(), "the tap is left");
    assert!(!socket.exists(), "the socket's file is left");
}

#[test]
fn capabilities_are_printed_without_other_options() {
    let builder = Daemon::builder(PROGRAM).arg("--print-capabilities");
    let mut daemon = builder.spawn().unwrap();
    let exit = daemon.wait_exit(SOON).unwrap();
    assert!(exit.status.success());
    assert!(exit.stdout.contains("\"type\": \"net\""), "{}", exit.stdout);
}

/// Frames go although the daemon is in another namespace than the tap.
fn serves_inherited(pairs: usize) {
    let scratch = Scratch::new("net-fd").unwrap();
    let namespace = NetNamespace::new().unwrap();
    let socket = scratch.join("s.sock");
    let queue = || namespace.open_tap("handed", pairs > 1).unwrap();
    let queues: Vec<_> = (0..pairs).map(|_| queue()).collect();
    namespace.ip("link set handed mtu 3000 up").unwrap();
    let numbers = queues
        .iter()
        .map(|fd| std::os::fd::AsRawFd::as_raw_fd(fd).to_string());
    let numbers = numbers.collect::<Vec<_>>().join(",");
    let builder = Daemon::builder(PROGRAM)
        .args(["--tap-fd", &numbers, "--socket-path"])
        .arg(&socket);
    let builder = queues
        .into_iter()
        .fold(builder, |builder, fd| builder.keep(fd));
    let mut daemon = builder.spawn().unwrap();
    daemon.wait_stderr("waiting for a front end", SOON).unwrap();
    let memory = GuestMemory::with_size(8 << 20).unwrap();
    let mut front_end = FrontEnd::connect(&socket, SOON).unwrap();
    let protocol = ProtocolFeatures::CONFIG | ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
    front_end.handshake(ALL, protocol).unwrap();
    front_end.set_mem_table(&memory).unwrap();
    let pairs = u16::try_from(pairs).unwrap().to_le_bytes();
    let config = front_end.get_config(8, 4).unwrap();
    assert_eq!(config, [pairs, 3000_u16.to_le_bytes()].concat());
    let mut receive = Receive::new(front_end.set_up_queue(0, 64).unwrap(), 2048);
    receive.post(32).unwrap();
    let mut transmit = Transmit::new(front_end.set_up_queue(1, 64).unwrap());
    transmit
        .send(network::packet::PLAIN, &network::packet::udp(9, b"out"))
        .unwrap();
    namespace.ip("addr add 10.9.0.1/24 dev handed").unwrap();
    let send = || std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", "10.9.0.2:9");
    namespace.run(send).unwrap().unwrap();
    // An ARP request at least.
    assert!(!receive.receive(SOON).unwrap().is_empty());
}

#[test]
fn inherited_taps_of_another_namespace_are_served() {
    serves_inherited(1);
    serves_inherited(2);
}

#[test]
fn inherited_descriptors_that_are_no_taps_are_refused() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let builder = Daemon::builder(PROGRAM).args(["--socket-path", "/s"]);
    let mut daemon = builder.inherit("--tap-fd", file.into()).spawn().unwrap();
    let exit = daemon.wait_exit(SOON).unwrap();
    assert!(
        exit.stderr.contains("is not bound to a tap interface"),
        "{}",
        exit.stderr
    );
}

#[test]
fn one_front_end_after_another_is_served() {
    let mut network = Network::start("net-reconnect");
    for _ in 0..20 {
        network.assert_serves();
    }
}

#[test]
fn a_killed_daemons_place_is_taken_over() {
    let mut network = Network::start("net-takeover");
    network.assert_serves();
    network.daemon.kill().unwrap();
    let builder = Daemon::builder(PROGRAM)
        .args(["--tap", TAP, "--socket-path"])
        .arg(&network.socket);
    network.daemon = network.namespace.spawn(builder).unwrap();
    network
        .daemon
        .wait_stderr("waiting for a front end", SOON)
        .unwrap();
    network::wire::wait_forwarding(&network.namespace, TAP);
    network.assert_serves();
}

#[test]
fn once_means_one_front_end_and_an_inherited_connection_is_one() {
    let tap = Tap::default();
    let mut network = Network::start_with("net-once", &tap, |daemon| daemon.arg("--once"));
    network.assert_serves();
    assert!(network.daemon.wait_exit(SOON).unwrap().status.success());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let builder = Daemon::builder(PROGRAM).args(["--tap", TAP]);
    let builder = builder.inherit("--fd", theirs.into());
    let mut daemon = network.namespace.spawn(builder).unwrap();
    let mut front_end = FrontEnd::from_stream(ours).unwrap();
    front_end.handshake(ALL, ProtocolFeatures::CONFIG).unwrap();
    drop(front_end);
    assert!(daemon.wait_exit(SOON).unwrap().status.success());
}

#[test]
fn signals_end_it_cleanly_with_a_front_end_attached() {
    let mut network = Network::start("net-signal");
    let _guest = network.guest(ALL, 64, 2048);
    let exit = network.daemon.terminate(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(!network.socket.exists());
}
