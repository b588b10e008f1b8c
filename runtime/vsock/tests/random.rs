//! Many connections at once, everything at random beside a model: no byte lost, doubled or out of order.
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
use std::time::{Duration, Instant};

use lab::Random;
use lab::frontend::vsock::op;
use support::guest::{Guest, Id, SEND};
use support::{Host, SOON, answered};

const STREAMS: usize = 24;
const STEPS: usize = 6000;
const LONGEST: usize = 150_000;

struct Numbers(Random);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.0.below(limit as u64)).unwrap()
    }
}

/// One direction: what is to go and how far it has come.
struct Direction {
    bytes: Vec<u8>,
    sent: usize,
    got: usize,
    ended: bool,
}

impl Direction {
    fn new(seed: usize, len: usize) -> Self {
        Self {
            bytes: lab::pattern(seed as u64, len),
            sent: 0,
            got: 0,
            ended: false,
        }
    }

    fn next(&self, most: usize) -> &[u8] {
        &self.bytes[self.sent..(self.sent + most).min(self.bytes.len())]
    }

    fn take(&mut self, bytes: &[u8]) {
        let expected = &self.bytes[self.got..self.got + bytes.len()];
        assert!(bytes == expected, "wrong bytes behind {}", self.got);
        self.got += bytes.len();
    }
}

struct Stream {
    program: UnixStream,
    id: Id,
    there: Direction,
    back: Direction,
}

impl Stream {
    fn begin(host: &Host, guest: &mut Guest, numbers: &mut Numbers, number: usize) -> Self {
        let (program, id) = if numbers.below(2) == 0 {
            let program = host.ask(80);
            let id = guest.accept();
            assert!(answered(&program));
            (program, id)
        } else {
            let port = 1000 + u32::try_from(number).unwrap();
            let listener = host.listen(port);
            let id = guest.connect(port);
            guest.wait("a response", |guest| guest.sockets[&id].connected);
            (listener.accept().unwrap().0, id)
        };
        program.set_nonblocking(true).unwrap();
        Self {
            program,
            id,
            there: Direction::new(2 * number, numbers.below(LONGEST)),
            back: Direction::new(2 * number + 1, numbers.below(LONGEST)),
        }
    }

    fn is_done(&self, guest: &Guest) -> bool {
        let ended = guest.sockets[&self.id].shut & SEND != 0;
        let all = |it: &Direction| it.got == it.bytes.len();
        all(&self.there) && all(&self.back) && self.back.ended && ended
    }

    fn state(&self, guest: &Guest) -> String {
        let way =
            |it: &Direction| format!("{}/{}/{} {}", it.got, it.sent, it.bytes.len(), it.ended);
        let (there, back) = (way(&self.there), way(&self.back));
        format!("there {there}, back {back}, {:?}", guest.sockets[&self.id])
    }

    fn step(&mut self, guest: &mut Guest, numbers: &mut Numbers) {
        let limit = [500, 500, 5000, 100_000][numbers.below(4)];
        let most = 1 + numbers.below(limit);
        match numbers.below(4) {
            0 => self.program_writes(most),
            1 => self.program_reads(most),
            2 => self.guest_sends(guest, most),
            _ => {
                let bytes = guest.take(self.id);
                self.there.take(&bytes);
            }
        }
    }

    fn program_writes(&mut self, most: usize) {
        if self.there.ended {
            return;
        }
        match self.program.write(self.there.next(most)) {
            Ok(count) => self.there.sent += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        if self.there.sent == self.there.bytes.len() {
            self.there.ended = true;
            self.program.shutdown(Shutdown::Write).unwrap();
        }
    }

    fn program_reads(&mut self, most: usize) {
        let mut bytes = vec![0; most];
        match self.program.read(&mut bytes) {
            Ok(0) => {
                assert_eq!(self.back.got, self.back.bytes.len(), "an early end");
                self.back.ended = true;
            }
            Ok(count) => self.back.take(&bytes[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }

    fn guest_sends(&mut self, guest: &mut Guest, most: usize) {
        if self.back.sent > self.back.bytes.len() {
            return;
        }
        let count = guest.send(self.id, self.back.next(most));
        self.back.sent += count;
        if self.back.sent == self.back.bytes.len() {
            guest.say(self.id, op::SHUTDOWN, SEND);
            // Once.
            self.back.sent += 1;
        }
    }
}

/// Stops both queues and lets them go on.
fn pause(guest: &mut Guest) {
    let bases = [0, 1].map(|queue| guest.front_end.stop_queue(queue).unwrap());
    let receive = guest.driver.receive_queue().handle().unwrap();
    guest.front_end.attach_queue(&receive, bases[0]).unwrap();
    let transmit = guest.driver.transmit().queue().handle().unwrap();
    guest.front_end.attach_queue(&transmit, bases[1]).unwrap();
}

/// `SEED=n` tries another run.
fn run(seed: u64, buffers: u16, buffer_len: usize, window: u32) {
    let more = std::env::var("SEED").map_or(0, |seed| seed.parse().unwrap());
    let seed = seed.wrapping_add(more);
    println!("seed {seed}");
    let host = Host::start_with("vsock-random", |daemon| daemon.args(["--buffer-kib", "16"]));
    let mut guest = Guest::with_buffers(&host, buffers, buffer_len);
    guest.window = window;
    guest.listening.insert(80);
    let mut numbers = Numbers(Random::new(seed));
    let mut streams: Vec<Stream> = (0..STREAMS)
        .map(|number| Stream::begin(&host, &mut guest, &mut numbers, number))
        .collect();
    for _ in 0..STEPS {
        let chosen = numbers.below(STREAMS);
        streams[chosen].step(&mut guest, &mut numbers);
        if numbers.below(3) == 0 {
            guest.pump(Duration::ZERO);
        }
        if numbers.below(500) == 0 {
            pause(&mut guest);
        }
    }
    // To the end, without any waits on each other.
    let (mut moved, mut progress) = (Instant::now(), 0);
    while !streams.iter().all(|stream| stream.is_done(&guest)) {
        for stream in &mut streams {
            stream.program_writes(10_000);
            stream.program_reads(10_000);
            stream.guest_sends(&mut guest, 10_000);
            let bytes = guest.take(stream.id);
            stream.there.take(&bytes);
        }
        if !guest.pump(Duration::ZERO) {
            std::thread::sleep(Duration::from_micros(200));
        }
        let got = streams.iter().map(|it| it.there.got + it.back.got).sum();
        if got != progress {
            (moved, progress) = (Instant::now(), got);
        }
        let stuck = |it: &&Stream| !it.is_done(&guest);
        assert!(
            moved.elapsed() < SOON,
            "stuck: {:?}",
            streams
                .iter()
                .filter(stuck)
                .map(|it| it.state(&guest))
                .collect::<Vec<_>>()
        );
    }
    for stream in streams {
        guest.say(stream.id, op::RST, 0);
    }
    host.wait_metric("ringside_vsock_connections", 0);
    host.check();
}

#[test]
fn many_streams_with_linux_buffers() {
    run(0x9e37_79b9_7f4a_7c15, 128, 4096, 256 << 10);
}

#[test]
fn many_streams_with_few_buffers() {
    run(0x2545_f491_4f6c_dd1d, 4, 1000, 30_000);
}

#[test]
fn many_streams_with_tiny_windows() {
    run(0x1234_5678_9abc_def1, 32, 64, 777);
}
