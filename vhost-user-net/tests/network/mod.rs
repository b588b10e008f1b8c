//! A daemon under test on a tap, and the other end of the tap's network.
//!
//! The tap is a port of a bridge in a namespace of the test's own; the bridge's other port is a
//! tap that the test itself reads and writes: the wire.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

pub mod packet;
pub mod wire;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lab::frontend::net::{Control, Receive, Received, Transmit};
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::netns::{NetNamespace, Tap};
use lab::process::{Daemon, DaemonBuilder};
use lab::scratch::Scratch;

pub use wire::Wire;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_vhost-user-net");
pub const SOON: Duration = Duration::from_secs(10);
/// Everything but the rings' features that a test asks for by itself.
pub const ALL: u64 = u64::MAX;
pub const TAP: &str = "net-tap";
pub const MAC: &str = "52:54:00:00:00:02";

/// One daemon on one tap.
pub struct Network {
    pub daemon: Daemon,
    pub socket: PathBuf,
    pub wire: Wire,
    pub namespace: NetNamespace,
    pub scratch: Scratch,
}

impl Network {
    pub fn start(test: &str) -> Self {
        Self::start_with(test, &Tap::default(), |daemon| daemon)
    }

    /// With two queue pairs.
    pub fn start_multi_queue(test: &str) -> Self {
        let tap = Tap {
            multi_queue: true,
            ..Tap::default()
        };
        Self::start_with(test, &tap, |daemon| daemon.args(["--queue-pairs", "2"]))
    }

    pub fn start_with(
        test: &str,
        tap: &Tap<'_>,
        options: impl FnOnce(DaemonBuilder) -> DaemonBuilder,
    ) -> Self {
        Self::start_in(test, tap, |daemon, _| options(daemon))
    }

    /// With options that name files in the test's directory.
    pub fn start_in(
        test: &str,
        tap: &Tap<'_>,
        options: impl FnOnce(DaemonBuilder, &Scratch) -> DaemonBuilder,
    ) -> Self {
        let scratch = Scratch::new(test).unwrap();
        let namespace = NetNamespace::new().unwrap();
        namespace.add_tap(TAP, tap).unwrap();
        let wire = Wire::new(&namespace, TAP, tap.mtu.unwrap_or(1500));
        let socket = scratch.join("net.sock");
        let builder = Daemon::builder(PROGRAM)
            .args(["--tap", TAP, "--mac", MAC, "--socket-path"])
            .arg(&socket)
            .arg("--metrics-socket")
            .arg(scratch.join("metrics.sock"));
        let mut daemon = namespace.spawn(options(builder, &scratch)).unwrap();
        daemon.wait_stderr("waiting for a front end", SOON).unwrap();
        wire::wait_forwarding(&namespace, TAP);
        Self {
            daemon,
            socket,
            wire,
            namespace,
            scratch,
        }
    }

    /// A front end that has negotiated `wanted` features and shared `memory`.
    pub fn front_end(&self, wanted: u64, memory: &GuestMemory) -> FrontEnd {
        let mut front_end = FrontEnd::connect(&self.socket, SOON).unwrap();
        let protocol = ProtocolFeatures::CONFIG
            | ProtocolFeatures::MQ
            | ProtocolFeatures::REPLY_ACK
            | ProtocolFeatures::LOG_SHMFD
            | ProtocolFeatures::BACKEND_REQ;
        front_end
            .handshake(wanted | features::VERSION_1, protocol)
            .unwrap();
        front_end.set_mem_table(memory).unwrap();
        front_end
    }

    /// A guest with one queue pair; receive buffers are `buffer_len` long, `buffers` of them.
    pub fn guest(&self, wanted: u64, buffers: usize, buffer_len: usize) -> Guest {
        let memory = GuestMemory::with_size(64 << 20).unwrap();
        let mut front_end = self.front_end(wanted, &memory);
        let mut receive = Receive::new(front_end.set_up_queue(0, 256).unwrap(), buffer_len);
        receive.post(buffers).unwrap();
        let transmit = Transmit::new(front_end.set_up_queue(1, 256).unwrap());
        Guest {
            receive,
            transmit,
            front_end,
        }
    }

    /// The value of a metric, `name{labels}` without the prefix.
    pub fn metric(&self, series: &str) -> u64 {
        let mut text = String::new();
        UnixStream::connect(self.scratch.join("metrics.sock"))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        let line = format!("ringside_{series} ");
        let value = text.lines().find_map(|l| l.strip_prefix(line.as_str()));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has reached `least`.
    pub fn wait_metric(&self, series: &str, least: u64) {
        let deadline = Instant::now() + SOON;
        while self.metric(series) < least {
            assert!(Instant::now() < deadline, "{series} stays under {least}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Drops of one cause.
    pub fn drops(&self, queue: usize, direction: &str, cause: &str) -> String {
        format!("net_drops_total{{queue=\"{queue}\",direction=\"{direction}\",cause=\"{cause}\"}}")
    }

    /// Fails unless a new connection carries a frame in either direction.
    pub fn assert_serves(&mut self) {
        let mut guest = self.guest(ALL, 64, 2048);
        let frame = packet::udp(40_000, b"to the wire");
        guest.transmit.send(packet::PLAIN, &frame).unwrap();
        assert_eq!(self.wire.receive_udp(40_000), b"to the wire");
        self.wire
            .send(packet::PLAIN, &packet::udp(40_001, b"to the guest"));
        let received = guest.next_udp(40_001);
        assert_eq!(packet::udp_payload(&received.frame), b"to the guest");
        assert!(self.daemon.is_running());
        let stderr = self.daemon.stderr();
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

/// A driver with one queue pair.
pub struct Guest {
    pub receive: Receive,
    pub transmit: Transmit,
    pub front_end: FrontEnd,
}

impl Guest {
    /// The next UDP frame to `port`.
    pub fn next_udp(&mut self, port: u16) -> Received {
        next_udp(&mut self.receive, port, SOON).unwrap()
    }

    /// The control queue of a device with `pairs` pairs.
    pub fn control(&mut self, pairs: usize) -> Control {
        Control::new(self.front_end.set_up_queue(2 * pairs, 64).unwrap())
    }
}

/// The next UDP frame to `port` within `timeout`. Others before it are passed over, those behind it wait.
pub fn next_udp(receive: &mut Receive, port: u16, timeout: Duration) -> Option<Received> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let received = receive.receive_one(left).unwrap()?;
        if packet::udp_port(&received.frame) == Some(port) {
            return Some(received);
        }
        if left.is_zero() {
            return None;
        }
    }
}
