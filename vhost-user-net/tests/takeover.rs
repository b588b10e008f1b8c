//! `kill -9`: the driver does not know of it, and goes on with the next process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use lab::frontend::FrontEnd;
use lab::frontend::net::{ACK_OK, Control, Receive, Transmit};
use lab::netns::Tap;
use lab::process::{Daemon, DaemonBuilder};
use lab::scratch::Scratch;
use network::{ALL, Guest, MAC, Network, PROGRAM, SOON, TAP, next_udp, packet};
use rustix::process::Signal;

const MOMENT: Duration = Duration::from_millis(200);
const BUFFERS: usize = 256;
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 9];
const BROADCAST: [u8; 6] = [0xff; 6];

/// What the daemon is told to remember.
#[derive(Clone, Copy)]
enum Notes {
    Kept,
    None,
}

impl Notes {
    fn options(self, daemon: DaemonBuilder, scratch: &Scratch) -> DaemonBuilder {
        let daemon = daemon.args(["--queue-pairs", "2"]);
        match self {
            Self::Kept => daemon.arg("--state-dir").arg(scratch.path()),
            Self::None => daemon,
        }
    }
}

/// A driver with two pairs, and the network that its daemons serve.
struct Survivor {
    network: Network,
    notes: Notes,
    receive: Receive,
    transmit: Transmit,
    second: Receive,
    control: Control,
    front_end: Option<FrontEnd>,
}

impl Survivor {
    fn start(test: &str, notes: Notes) -> Self {
        let tap = Tap {
            multi_queue: true,
            ..Tap::default()
        };
        let options = |daemon, scratch: &Scratch| notes.options(daemon, scratch);
        let network = Network::start_in(test, &tap, options);
        let mut guest = network.guest(ALL, BUFFERS, 2048);
        let second = Receive::new(guest.front_end.set_up_queue(2, 256).unwrap(), 2048);
        let control = guest.control(2);
        let Guest {
            receive,
            transmit,
            front_end,
        } = guest;
        Self {
            network,
            notes,
            receive,
            transmit,
            second,
            control,
            front_end: Some(front_end),
        }
    }

    fn command(&mut self, class: u8, command: u8, data: &[u8]) {
        let ack = self.control.command(class, command, data).unwrap();
        assert_eq!(ack, ACK_OK, "command {command} of class {class}");
    }

    /// The daemon is killed, another one takes its place.
    fn lose_daemon(&mut self) {
        self.network.daemon.kill().unwrap();
        let network = &mut self.network;
        let builder = Daemon::builder(PROGRAM)
            .args(["--tap", TAP, "--mac", MAC, "--socket-path"])
            .arg(&network.socket)
            .arg("--metrics-socket")
            .arg(network.scratch.join("metrics.sock"));
        let builder = self.notes.options(builder, &network.scratch);
        network.daemon = network.namespace.spawn(builder).unwrap();
        let said = "waiting for a front end";
        network.daemon.wait_stderr(said, SOON).unwrap();
        network::wire::wait_forwarding(&network.namespace, TAP);
        self.connect();
    }

    /// Goes on behind the used indexes, as our VMM and QEMU do.
    fn connect(&mut self) {
        self.front_end = None;
        let memory = self.receive.queue_mut().memory().clone();
        let mut front_end = self.network.front_end(ALL, &memory);
        for queue in [
            &*self.receive.queue_mut(),
            self.transmit.exchange().queue(),
            &*self.second.queue_mut(),
            self.control.exchange().queue(),
        ] {
            let base = queue.used_idx().unwrap();
            front_end.attach_queue(queue, base).unwrap();
        }
        self.front_end = Some(front_end);
    }

    fn wire(&mut self, frame: &[u8]) {
        self.network.wire.send(packet::PLAIN, frame);
    }

    /// Frames that lie ready when the daemon looks, so that it takes them as one batch: they have come when
    /// the last one, which is broadcast to `mark`, has.
    fn burst(&mut self, mark: u16, send: impl FnOnce(&mut Self)) {
        self.network.daemon.signal(Signal::STOP).unwrap();
        send(self);
        self.wire(&packet::udp(mark, b"mark"));
        self.network.daemon.signal(Signal::CONT).unwrap();
        next_udp(&mut self.receive, mark, SOON).unwrap();
    }

    /// Waits until frames come on so many pairs: a queue's thread attaches its lane some time after the ring
    /// was enabled.
    fn wait_for_lanes(&mut self, lanes: usize) {
        let deadline = Instant::now() + SOON;
        while self.spread().iter().filter(|count| **count > 0).count() < lanes {
            assert!(
                Instant::now() < deadline,
                "fewer than {lanes} lanes are open"
            );
        }
    }

    /// Whether a frame arrives on either pair.
    fn arrives(&mut self, frame: &[u8], mark: u16) -> bool {
        self.wire(frame);
        self.wire(&packet::udp(mark, b"mark"));
        let deadline = Instant::now() + SOON;
        let (mut came, mut marked) = (false, false);
        loop {
            let was_marked = marked;
            for receive in [&mut self.receive, &mut self.second] {
                for received in receive.receive(Duration::from_millis(50)).unwrap() {
                    came |= received.frame == frame;
                    marked |= packet::udp_port(&received.frame) == Some(mark);
                }
            }
            // One pair may be behind the other.
            if was_marked {
                return came;
            }
            assert!(Instant::now() < deadline, "the mark was lost");
        }
    }

    fn config(&mut self, range: std::ops::Range<u32>) -> Vec<u8> {
        let front_end = self.front_end.as_mut().unwrap();
        front_end.get_config(range.start, range.end).unwrap()
    }

    /// Datagrams that come on each of both lanes.
    fn spread(&mut self) -> [usize; 2] {
        for port in 6000..6064 {
            self.wire(&packet::udp(port, b"flow"));
        }
        [&mut self.receive, &mut self.second].map(|queue| {
            let mut count = 0;
            loop {
                let frames = queue.receive(MOMENT).unwrap();
                if frames.is_empty() {
                    return count;
                }
                let port = |frame: &[u8]| packet::udp_port(frame).is_some_and(|it| it >= 6000);
                count += frames.iter().filter(|it| port(&it.frame)).count();
            }
        })
    }
}

/// A datagram that the bridge takes for one of a station on the wire's side.
fn frame_to(to: [u8; 6], port: u16, vlan: Option<u16>) -> Vec<u8> {
    let mut frame = packet::udp(port, b"frame");
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x55]);
    if let Some(vlan) = vlan {
        let [high, low] = vlan.to_be_bytes();
        frame.splice(12..12, [0x81, 0, high, low]);
    }
    frame
}

/// Kills daemons that have used some of the buffers they took and not others, and counts what the driver
/// has back in the end.
fn every_buffer_comes_back_once(test: &str, notes: Notes) {
    let mut survivor = Survivor::start(test, notes);
    survivor.wait_for_lanes(1);
    let (header, large) = packet::tcp_unsegmented(3, 1400, &lab::pattern(1, 30_000));
    for round in 0..6 {
        let mark = 7000 + round;
        survivor.command(0, 0, &[0]);
        // The daemon learns to ask for many at once.
        for _ in 0..3 {
            survivor.burst(mark, |it| {
                (0..40).for_each(|_| it.wire(&packet::udp(5000, b"small")));
            });
        }
        survivor.burst(mark, |it| {
            for number in 0..20 {
                match number % 5 {
                    1 | 2 => it.wire(&frame_to(GROUP, 5000, None)),
                    3 if round % 2 == 0 => it.network.wire.send(header, &large),
                    _ => it.wire(&packet::udp(5000, b"small")),
                }
            }
        });
        // However many are taken at once, the last ones leave buffers behind that lie before those they used.
        survivor.burst(mark, |it| {
            for _ in 0..20 {
                it.wire(&frame_to(GROUP, 5000, None));
                it.wire(&packet::udp(5000, b"small"));
            }
        });
        survivor.lose_daemon();
        survivor.wait_for_lanes(1);
        let out = packet::udp(mark, b"out");
        survivor.transmit.send(packet::PLAIN, &out).unwrap();
        assert_eq!(survivor.network.wire.receive_udp(mark), b"out");
    }
    // All that came is taken, and given back. From here on nothing is.
    survivor.burst(8000, |_| ());
    (0..BUFFERS + 40).for_each(|_| survivor.wire(&packet::udp(5001, b"one each")));
    let mut heads = HashSet::new();
    while heads.len() < BUFFERS {
        let used = survivor.receive.queue_mut().wait_used(SOON).unwrap();
        assert!(!used.is_empty(), "{} buffers came back", heads.len());
        assert!(used.iter().all(|it| heads.insert(it.id)), "one came twice");
    }
    let stderr = survivor.network.daemon.stderr();
    assert!(!stderr.contains("queue stopped"), "{stderr}");
}

#[test]
fn buffers_of_a_killed_daemon_come_back_once_with_a_state_directory() {
    every_buffer_comes_back_once("net-takeover-notes", Notes::Kept);
}

#[test]
fn buffers_of_a_killed_daemon_come_back_once_without_one() {
    every_buffer_comes_back_once("net-takeover-order", Notes::None);
}

/// A driver that has set all that it can.
fn particular(test: &str, notes: Notes) -> Survivor {
    let mut survivor = Survivor::start(test, notes);
    survivor.second.post(128).unwrap();
    survivor.command(2, 0, &5_u16.to_le_bytes());
    survivor.command(1, 1, &[2, 0, 0, 0, 0, 0x42]);
    survivor.command(5, 0, &[0; 8]);
    survivor.command(4, 0, &[2, 0]);
    survivor.command(0, 0, &[0]);
    survivor.command(0, 1, &[0]);
    survivor
}

fn assert_is_served_as_it_wants(survivor: &mut Survivor) {
    let own = [2, 0, 0, 0, 0, 0x42];
    survivor.wait_for_lanes(2);
    assert!(survivor.arrives(&frame_to(own, 1, None), 100));
    assert!(!survivor.arrives(&frame_to(OTHER, 1, None), 101));
    assert!(survivor.arrives(&frame_to(BROADCAST, 1, Some(5)), 102));
    assert!(!survivor.arrives(&frame_to(BROADCAST, 1, Some(6)), 103));
    assert_eq!(survivor.config(0..6), own);
    let (header, large) = packet::tcp_unsegmented(3, 1400, &lab::pattern(1, 20_000));
    survivor.network.wire.send(header, &large);
    let segments = [&mut survivor.receive, &mut survivor.second].map(|queue| {
        let frames = queue.receive(MOMENT).unwrap();
        frames.iter().map(|it| it.frame.len()).max().unwrap_or(0)
    });
    assert!((1400..1600).contains(segments.iter().max().unwrap()));
}

#[test]
fn what_a_driver_has_set_outlives_daemon_after_daemon() {
    let mut survivor = particular("net-choices", Notes::Kept);
    assert_is_served_as_it_wants(&mut survivor);
    for _ in 0..2 {
        survivor.lose_daemon();
        // The control ring's thread comes by some time after the ring was enabled.
        survivor.command(0, 1, &[0]);
        assert_is_served_as_it_wants(&mut survivor);
    }
    // A new driver in its place has set nothing.
    survivor.front_end = None;
    survivor.network.assert_serves();
    let mut guest = survivor.network.guest(ALL, 64, 2048);
    let _control = guest.control(2);
    // Its lane is attached some time after the ring was enabled.
    let deadline = Instant::now() + SOON;
    loop {
        survivor.wire(&frame_to(OTHER, 40_002, None));
        if next_udp(&mut guest.receive, 40_002, MOMENT).is_some() {
            break;
        }
        assert!(Instant::now() < deadline, "it does not hear all");
    }
}

#[test]
fn what_a_driver_has_set_outlives_its_connection() {
    let mut survivor = particular("net-choices-again", Notes::None);
    survivor.connect();
    survivor.command(0, 1, &[0]);
    assert_is_served_as_it_wants(&mut survivor);
}

#[test]
fn a_driver_nobody_remembers_loses_no_frame() {
    let mut survivor = particular("net-choices-lost", Notes::None);
    survivor.lose_daemon();
    let said = "what it asked for is not known";
    survivor.network.daemon.wait_stderr(said, SOON).unwrap();
    survivor.wait_for_lanes(2);
    // What Linux says when a group is joined. It names neither its VLANs nor its address again.
    survivor.command(0, 0, &[0]);
    survivor.command(0, 1, &[0]);
    survivor.command(1, 0, &[0; 8]);
    let own = [2, 0, 0, 0, 0, 0x42];
    assert!(survivor.arrives(&frame_to(own, 1, None), 100));
    assert!(survivor.arrives(&frame_to(BROADCAST, 1, Some(5)), 101));
    assert!(!survivor.arrives(&frame_to(GROUP, 1, None), 102));
}
