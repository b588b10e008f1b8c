//! Commands to a running daemon.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use lab::frontend::net::Received;
use lab::netns::Tap;
use lab::process::Daemon;
use network::{ALL, Network, PROGRAM, SOON, packet};

const CONTROL: &str = "control";

fn controlled(test: &str) -> Network {
    Network::start_in(test, &Tap::default(), |daemon, scratch| {
        daemon.arg("--control").arg(scratch.join(CONTROL))
    })
}

fn socket(network: &Network) -> PathBuf {
    network.scratch.join(CONTROL)
}

fn ctl(network: &Network, command: &str) -> Output {
    let mut program = Command::new(PROGRAM);
    program
        .arg("ctl")
        .arg(socket(network))
        .args(command.split(' '));
    program.output().unwrap()
}

fn told(network: &Network, command: &str) -> String {
    let output = ctl(network, command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn statistics_tell_what_passed() {
    let mut network = controlled("net-ctl-stats");
    assert!(told(&network, "stats").contains("\"connected\":false"));
    network.assert_serves();
    let stats = told(&network, "stats");
    for part in [
        "\"port\":\"net-tap\"",
        "\"network\":\"tap net-tap\"",
        "\"link\":\"up\"",
        "\"mac\":\"52:54:00:00:00:02\"",
        "\"transmitted\":{\"packets\":1,",
    ] {
        assert!(stats.contains(part), "{part}: {stats}");
    }
    let refused = ctl(&network, "stats --port x");
    assert!(!refused.status.success());
    let no_option = String::from_utf8_lossy(&refused.stderr).into_owned();
    let unknown = ctl(&network, "link down --port x");
    let stderr = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(
        stderr.contains("there is no port 'x'"),
        "{stderr}{no_option}"
    );
    let exit = network.daemon.terminate(SOON).unwrap();
    assert!(exit.status.success());
    assert!(!socket(&network).exists());
}

#[test]
fn the_link_goes_down_and_up() {
    let mut network = controlled("net-ctl-link");
    let mut guest = network.guest(ALL, 64, 2048);
    let mut channel = guest.front_end.open_backend_channel().unwrap();
    told(&network, "link down");
    assert!(channel.wait_config_changed(SOON).unwrap());
    assert_eq!(guest.front_end.get_config(6, 2).unwrap(), [0, 0]);
    guest
        .transmit
        .send(packet::PLAIN, &packet::udp(1, b"lost"))
        .unwrap();
    network.wait_metric(&network.drops(1, "transmit", "unplugged"), 1);
    network.wire.send(packet::PLAIN, &packet::udp(2, b"lost"));
    network.wait_metric(&network.drops(0, "receive", "unplugged"), 1);
    told(&network, "link up");
    assert!(channel.wait_config_changed(SOON).unwrap());
    // Up, and asked to announce itself.
    assert_eq!(guest.front_end.get_config(6, 2).unwrap(), [3, 0]);
    network.wire.send(packet::PLAIN, &packet::udp(3, b"there"));
    assert_eq!(packet::udp_payload(&guest.next_udp(3).frame), b"there");
}

#[test]
fn limits_hold_in_each_direction_and_go_away_again() {
    let mut network = controlled("net-ctl-limit");
    let mut guest = network.guest(ALL, 128, 2048);
    told(
        &network,
        "limit --direction transmit --packets 200 --packets-burst 10",
    );
    let frame = packet::udp(1, &[0; 100]);
    let started = Instant::now();
    for _ in 0..60 {
        guest.transmit.send(packet::PLAIN, &frame).unwrap();
    }
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(200),
        "{took:?} for 50 frames beyond the burst"
    );
    let stats = told(
        &network,
        "limit --direction receive --bytes 20000 --bytes-burst 1000",
    );
    assert!(
        stats.contains("\"transmit_limit\":{\"packets\":200,\"packets_burst\":10,"),
        "{stats}"
    );
    let started = Instant::now();
    for _ in 0..50 {
        network.wire.send(packet::PLAIN, &packet::udp(2, &[0; 100]));
    }
    let mut came = 0;
    while came < 50 {
        let frames = guest.receive.receive(SOON).unwrap();
        assert!(!frames.is_empty(), "only {came} came");
        let wanted = |it: &&Received| packet::udp_port(&it.frame) == Some(2);
        came += frames.iter().filter(wanted).count();
    }
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(200),
        "{took:?} for 7 kB at 20 kB/s"
    );
    told(&network, "limit");
    let started = Instant::now();
    for _ in 0..200 {
        guest.transmit.send(packet::PLAIN, &frame).unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_capture_holds_what_passes_in_both_directions() {
    let mut network = controlled("net-ctl-capture");
    let mut guest = network.guest(ALL, 64, 2048);
    let file = network.scratch.join("capture.pcap");
    let mut capture = Daemon::builder(PROGRAM)
        .arg("ctl")
        .arg(socket(&network))
        .arg("capture")
        .arg(&file)
        .args(["--frames", "2", "--snap", "50"])
        .spawn()
        .unwrap();
    // The file's header comes with the first frame the client has been sent.
    let deadline = Instant::now() + SOON;
    while !file.exists() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(200));
    let out = packet::udp(1, b"from the guest, and longer than what is kept of it");
    guest.transmit.send(packet::PLAIN, &out).unwrap();
    let into = packet::udp(2, b"x");
    network.wire.send(packet::PLAIN, &into);
    guest.next_udp(2);
    let exit = capture.wait_exit(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(bytes[..4], 0xa1b2_c3d4_u32.to_le_bytes());
    let record = |at: usize| {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let kept = word(at + 8);
        (word(at + 12), &bytes[at + 16..at + 16 + kept])
    };
    assert_eq!(record(24), (out.len(), &out[..50]));
    let kept = into.len().min(50);
    assert_eq!(record(24 + 16 + 50), (into.len(), &into[..kept]));
    assert_eq!(bytes.len(), 24 + 16 + 50 + 16 + kept);
}

#[test]
fn a_client_that_talks_nonsense_or_nothing_harms_nobody() {
    let mut network = controlled("net-ctl-hostile");
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(UnixStream::connect(socket(&network)).unwrap());
    }
    let mut stream = UnixStream::connect(socket(&network)).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for line in [
        "nonsense\n",
        "{\"command\":\"fly\"}\n",
        "{\"command\":\"limit\",\"packets\":-1}\n",
        "{\"command\":\"capture\",\"snap\":99999999999999999999}\n",
        "\u{0}\n",
    ] {
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        assert!(answer.starts_with("{\"error\":"), "{line:?}: {answer}");
    }
    // Captures of clients that have gone do not stay: there is room for four.
    let (deadline, mut captures) = (Instant::now() + SOON, 0);
    while captures < 6 {
        let mut stream = UnixStream::connect(socket(&network)).unwrap();
        stream
            .write_all(b"{\"command\":\"capture\",\"snap\":10}\n")
            .unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        if answer.contains("four captures already") {
            assert!(Instant::now() < deadline, "captures stay: {answer}");
            std::thread::sleep(Duration::from_millis(20));
        } else {
            assert!(answer.starts_with("{\"ok\":"), "{answer}");
            captures += 1;
        }
    }
    network.assert_serves();
    assert!(told(&network, "stats").contains("net-tap"));
}
