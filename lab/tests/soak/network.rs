//! Datagrams each way through a tap in a network namespace: each arrives once and whole, except those that were
//! under way when the daemon died.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use lab::frontend::net::{Header, Receive, Transmit};
use lab::frontend::{FrontEnd, GuestMemory};
use lab::netns::{NetNamespace, Tap};

use super::subject::{Report, SOON, Subject};
use super::{Load, Loaded, soak as soak_both};

const TAP: &str = "soak-tap";
const PORT: u16 = 4000;
const BATCH: u64 = 16;
const BATCHES: u64 = 20;
const LEN: usize = 1000;
/// Between two attempts to get a datagram through a link that has just come up.
const AGAIN: Duration = Duration::from_millis(200);

pub(crate) fn soak(seed: u64, until: Instant) -> Vec<Report> {
    let networks = [("network", false), ("network, killed", true)];
    soak_both(
        networks.map(|(name, mortal)| begin(name, mortal, seed)),
        until,
    )
}

pub(crate) fn begin(name: &'static str, mortal: bool, seed: u64) -> Loaded {
    let namespace = NetNamespace::new().unwrap();
    let tap = Tap {
        address: Some("10.9.0.1/24"),
        ..Tap::default()
    };
    namespace.add_tap(TAP, &tap).unwrap();
    // The guest here answers no ARP.
    let neighbour = "neigh replace 10.9.0.2 lladdr 52:54:00:00:00:02 nud permanent dev";
    namespace.ip(&format!("{neighbour} {TAP}")).unwrap();
    let host = namespace
        .run(|| UdpSocket::bind(("0.0.0.0", PORT)))
        .unwrap();
    let program = ("vhost-user-net", &["--tap", TAP][..]);
    let subject = Subject::new(name, program, (mortal, seed), Some(namespace));
    let load = Network {
        host: host.unwrap(),
        next: 0,
    };
    (subject, Box::new(load))
}

struct Network {
    /// The host's end.
    host: UdpSocket,
    next: u64,
}

struct Guest {
    receive: Receive,
    transmit: Transmit,
    front_end: FrontEnd,
}

impl Load for Network {
    fn round(&mut self, subject: &mut Subject) {
        let memory = GuestMemory::with_size(16 << 20).unwrap();
        let mut front_end = subject.front_end(&memory);
        let mut receive = Receive::new(front_end.set_up_queue(0, 256).unwrap(), 2048);
        receive.post(128).unwrap();
        let mut transmit = Transmit::new(front_end.set_up_queue(1, 256).unwrap());
        transmit.exchange().set_timeout(SOON);
        let mut guest = Guest {
            receive,
            transmit,
            front_end,
        };
        self.begin(&mut guest);
        let dies_at = subject.mortal.then(|| subject.random(BATCHES));
        for batch in 0..BATCHES {
            if dies_at == Some(batch) {
                guest = self.die(guest, subject, &memory);
            }
            self.exchange(&mut guest, subject);
        }
    }
}

impl Network {
    /// Until the link is up, datagrams are lost.
    fn begin(&mut self, guest: &mut Guest) {
        let deadline = Instant::now() + SOON;
        loop {
            let probe = self.number();
            let _ = self.host.send_to(&payload(probe), ("10.9.0.2", PORT));
            guest
                .transmit
                .send(Header::default(), &frame(probe))
                .unwrap();
            if self.arrive_at_host(probe, AGAIN) && arrive_at_guest(guest, probe, AGAIN) {
                return;
            }
            assert!(Instant::now() < deadline, "no datagram passes");
        }
    }

    /// A batch each way: none is lost.
    fn exchange(&mut self, guest: &mut Guest, subject: &mut Subject) {
        let numbers: Vec<u64> = (0..BATCH).map(|_| self.number()).collect();
        let mut tickets = Vec::new();
        for number in &numbers {
            tickets.push(
                guest
                    .transmit
                    .submit(Header::default(), &frame(*number))
                    .unwrap(),
            );
            let to = ("10.9.0.2", PORT);
            self.host.send_to(&payload(*number), to).unwrap();
        }
        for ticket in tickets {
            guest.transmit.exchange().wait(ticket).unwrap();
        }
        for number in numbers {
            assert!(
                self.arrive_at_host(number, SOON),
                "{subject}: {number} from the guest"
            );
            assert!(
                arrive_at_guest(guest, number, SOON),
                "{subject}: {number} to the guest"
            );
        }
        subject.requests += 2 * BATCH;
        subject.bytes += 2 * BATCH * LEN as u64;
    }

    /// The daemon dies with frames under way: their buffers come back, and the link goes on.
    fn die(&mut self, guest: Guest, subject: &mut Subject, memory: &GuestMemory) -> Guest {
        let Guest {
            mut receive,
            mut transmit,
            front_end,
        } = guest;
        let mut tickets = Vec::new();
        for _ in 0..BATCH {
            let number = self.number();
            tickets.push(transmit.submit(Header::default(), &frame(number)).unwrap());
            let _ = self.host.send_to(&payload(number), ("10.9.0.2", PORT));
        }
        drop(front_end);
        let front_end = subject.kill(|subject| {
            let mut front_end = subject.front_end(memory);
            for queue in [receive.queue_mut(), transmit.exchange().queue_mut()] {
                front_end
                    .attach_queue(queue, queue.used_idx().unwrap())
                    .unwrap();
                queue.kick_always().unwrap();
            }
            for ticket in tickets {
                transmit.exchange().wait(ticket).unwrap();
            }
            front_end
        });
        let mut guest = Guest {
            receive,
            transmit,
            front_end,
        };
        self.begin(&mut guest);
        guest
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Waits for datagram `number`; earlier ones, which were sent twice or late, are passed over.
    fn arrive_at_host(&mut self, number: u64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut bytes = [0; 2 * LEN];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.host
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .unwrap();
            if let Ok(len) = self.host.recv(&mut bytes)
                && is_sound(&bytes[..len]) == number
            {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }
}

fn arrive_at_guest(guest: &mut Guest, number: u64, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(received) = guest.receive.receive_one(left).unwrap() else {
            return false;
        };
        // UDP over IPv4 over Ethernet; the kernel of the namespace has things of its own to say.
        let is_ours = received.frame.get(12..14) == Some(&[8, 0]) && received.frame[23] == 17;
        if is_ours && is_sound(&received.frame[42..]) == number {
            return true;
        }
    }
}

/// The number in a datagram, whose every byte is what was sent.
fn is_sound(bytes: &[u8]) -> u64 {
    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == payload(number), "datagram {number} came changed");
    number
}

fn payload(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend(lab::pattern(number, LEN - 8));
    bytes
}

/// From the guest to the host, without a UDP checksum (RFC 768: zero).
fn frame(number: u64) -> Vec<u8> {
    let payload = payload(number);
    let mut frame = vec![0xff; 6];
    frame.extend([0x52, 0x54, 0, 0, 0, 2, 8, 0]);
    let udp_len = (8 + payload.len()) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp_len).to_be_bytes());
    ip.extend([0, 1, 0x40, 0, 64, 17, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1]);
    let sum: u32 = ip
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    // RFC 1071.
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(ip);
    for half in [PORT, PORT, udp_len, 0] {
        frame.extend(half.to_be_bytes());
    }
    frame.extend(payload);
    frame
}
