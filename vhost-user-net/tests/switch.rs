//! Guests on one switch.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod network;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::frontend::net::{Header, Receive, Received, Transmit};
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::inside::Process;
use lab::process::{Daemon, DaemonBuilder};
use lab::scratch::Scratch;
use network::{ALL, PROGRAM, SOON, packet};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Long enough for a frame that should not come.
const MOMENT: Duration = Duration::from_millis(50);
const BROADCAST: [u8; 6] = [0xff; 6];
/// `VIRTIO_NET_F_MRG_RXBUF` alone: whatever is left undone has to be done by the switch.
const PLAIN_GUEST: u64 = 1 << 15;

struct Switch {
    daemon: Daemon,
    scratch: Scratch,
}

impl Switch {
    fn start(test: &str, ports: usize) -> Self {
        Self::start_with(test, ports, |daemon, _| daemon)
    }

    fn start_with(
        test: &str,
        ports: usize,
        options: impl FnOnce(DaemonBuilder, &Scratch) -> DaemonBuilder,
    ) -> Self {
        let scratch = Scratch::new(test).unwrap();
        let socket = |port: usize| scratch.join(&format!("{port}.sock"));
        let mut builder = Daemon::builder(PROGRAM)
            .arg("--switch")
            .arg("--metrics-socket")
            .arg(scratch.join("metrics"));
        for port in 0..ports {
            builder = builder.arg(format!(
                "--port=name=p{port},socket={}",
                socket(port).display()
            ));
        }
        let mut daemon = options(builder, &scratch).spawn().unwrap();
        for port in 0..ports {
            daemon.wait_listening(&socket(port), SOON).unwrap();
        }
        Self { daemon, scratch }
    }

    fn guest(&self, port: usize, wanted: u64, buffers: usize) -> Guest {
        let memory = GuestMemory::with_size(64 << 20).unwrap();
        let socket = self.scratch.join(&format!("{port}.sock"));
        let mut front_end = FrontEnd::connect(&socket, SOON).unwrap();
        let protocol =
            ProtocolFeatures::CONFIG | ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
        front_end
            .handshake(wanted | features::VERSION_1, protocol)
            .unwrap();
        front_end.set_mem_table(&memory).unwrap();
        let mut receive = Receive::new(front_end.set_up_queue(0, 256).unwrap(), 2048);
        receive.post(buffers).unwrap();
        let transmit = Transmit::new(front_end.set_up_queue(1, 256).unwrap());
        let number = u8::try_from(port).unwrap();
        Guest {
            mac: [2, 0, 0, 0, 0, number],
            receive,
            transmit,
            front_end,
        }
    }

    fn metric(&self, series: &str) -> u64 {
        let mut text = String::new();
        let mut socket = UnixStream::connect(self.scratch.join("metrics")).unwrap();
        socket.read_to_string(&mut text).unwrap();
        let lines = text.lines().filter(|line| line.contains(series));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }
}

struct Guest {
    mac: [u8; 6],
    receive: Receive,
    transmit: Transmit,
    front_end: FrontEnd,
}

impl Guest {
    fn send(&mut self, to: [u8; 6], header: Header, frame: &[u8]) {
        let mut frame = frame.to_vec();
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&self.mac);
        self.transmit.send(header, &frame).unwrap();
    }

    fn received(&mut self) -> Vec<Received> {
        self.receive.receive(SOON).unwrap()
    }

    fn hears_nothing(&mut self) {
        assert_eq!(self.receive.receive(MOMENT).unwrap(), []);
    }

    fn hears(&mut self, payload: &[u8]) {
        let frames = self.received();
        let [frame] = &frames[..] else {
            panic!("{} frames", frames.len());
        };
        assert_eq!(packet::udp_payload(&frame.frame), payload);
        assert_eq!(frame.header.num_buffers, 1);
    }
}

#[test]
fn frames_find_the_station_that_was_heard_and_others_go_to_all() {
    let switch = Switch::start("switch-learn", 3);
    let [mut a, mut b, mut c] = [0, 1, 2].map(|port| switch.guest(port, ALL, 64));
    let (to_a, to_b) = (a.mac, b.mac);
    a.send(to_b, packet::PLAIN, &packet::udp(1, b"who is b?"));
    b.hears(b"who is b?");
    c.hears(b"who is b?");
    b.send(to_a, packet::PLAIN, &packet::udp(1, b"me"));
    a.hears(b"me");
    c.hears_nothing();
    a.send(to_b, packet::PLAIN, &packet::udp(1, b"hello"));
    b.hears(b"hello");
    c.hears_nothing();
    a.send(BROADCAST, packet::PLAIN, &packet::udp(1, b"all"));
    b.hears(b"all");
    c.hears(b"all");
    a.hears_nothing();
    assert!(!switch.daemon.stderr().contains("panicked"));
}

#[test]
fn what_a_guest_does_not_take_is_finished_for_it() {
    let switch = Switch::start("switch-offloads", 3);
    let mut a = switch.guest(0, ALL, 64);
    let mut whole = switch.guest(1, ALL, 128);
    let mut plain = switch.guest(2, PLAIN_GUEST, 128);
    let payload = lab::pattern(5, 30_000);
    let (header, frame) = packet::tcp_unsegmented(7, 1400, &payload);
    a.send(BROADCAST, header, &frame);
    let frames = whole.received();
    assert_eq!(frames.len(), 1);
    assert_eq!(
        packet::tcp_payload(&frames[0].frame, 7),
        Some((0, &payload[..]))
    );
    assert_eq!(frames[0].header.gso_size, 1400);
    let mut stream: Vec<u8> = Vec::new();
    while stream.len() < payload.len() {
        for Received { header, frame } in plain.received() {
            assert_eq!((header.flags, header.gso_type), (0, 0));
            assert!(packet::checksum_holds(&frame));
            let (offset, part) = packet::tcp_payload(&frame, 7).unwrap();
            assert_eq!(offset, stream.len());
            assert!(part.len() <= 1400);
            stream.extend(part);
        }
    }
    assert_eq!(stream, payload);
    let (header, frame) = packet::udp_unfinished(9, b"unfinished");
    a.send(BROADCAST, header, &frame);
    let received = &plain.received()[0];
    assert!(packet::checksum_holds(&received.frame));
    assert_eq!(received.header.flags, 0);
}

#[test]
fn a_guest_without_buffers_loses_frames_and_nobody_waits() {
    let switch = Switch::start("switch-full", 2);
    let mut a = switch.guest(0, ALL, 64);
    let mut b = switch.guest(1, ALL, 0);
    let to_b = b.mac;
    let frame = packet::udp(3, &[7; 100]);
    for _ in 0..3000 {
        a.send(to_b, packet::PLAIN, &frame);
    }
    let full = switch.metric("cause=\"full\"");
    assert!(
        full == 0,
        "a flooded frame is not the sender's loss: {full}"
    );
    b.send(a.mac, packet::PLAIN, &frame);
    a.received();
    for _ in 0..3000 {
        a.send(to_b, packet::PLAIN, &frame);
    }
    assert!(switch.metric("cause=\"full\"") >= 1000);
    b.receive.post(128).unwrap();
    let mut count = 0;
    while count < 1000 {
        count += b.received().len();
    }
}

#[test]
fn a_header_that_contradicts_its_frame_is_dropped() {
    let switch = Switch::start("switch-hostile", 2);
    let mut a = switch.guest(0, ALL, 64);
    let mut b = switch.guest(1, PLAIN_GUEST, 64);
    let (good, frame) = packet::tcp_unsegmented(2, 1400, &lab::pattern(1, 4000));
    let mut bad = [good; 6];
    bad[0].gso_type = 0x7f;
    bad[1].csum_start = 60_000;
    bad[2].gso_size = 0;
    bad[3].csum_start = 4;
    bad[4].gso_type = 4;
    bad[5].flags = 0;
    b.send(a.mac, packet::PLAIN, &packet::udp(2, b"here"));
    a.received();
    let to_b = b.mac;
    for header in bad {
        a.send(to_b, header, &frame);
    }
    b.hears_nothing();
    assert_eq!(switch.metric("cause=\"malformed\""), 6);
    a.send(to_b, packet::PLAIN, &packet::udp(2, b"still there"));
    b.hears(b"still there");
}

#[test]
fn a_guest_that_comes_back_is_found_again() {
    let switch = Switch::start("switch-reconnect", 2);
    let mut a = switch.guest(0, ALL, 64);
    for round in 0..3_u8 {
        let mut b = switch.guest(1, ALL, 64);
        let to_b = b.mac;
        b.send(a.mac, packet::PLAIN, &packet::udp(2, &[round]));
        a.hears(&[round]);
        // Its receive queue may still be starting: until then frames are lost.
        let deadline = Instant::now() + SOON;
        loop {
            assert!(Instant::now() < deadline, "b hears nothing");
            a.send(to_b, packet::PLAIN, &packet::udp(2, &[round]));
            if !b.receive.receive(MOMENT).unwrap().is_empty() {
                break;
            }
        }
        b.front_end.stop_queue(0).unwrap();
        // Nobody listens: lost as on a wire that is not plugged in.
        a.send(to_b, packet::PLAIN, &packet::udp(2, b"lost"));
    }
    assert!(switch.metric("cause=\"down\"") >= 3);
}

const MANY: usize = 64;

/// The next frame with this payload; others before it are passed over.
fn expect(guest: &mut Guest, payload: &[u8]) {
    let deadline = Instant::now() + SOON;
    loop {
        assert!(Instant::now() < deadline, "{payload:?} did not come");
        let frames = guest.received();
        let is_it = |it: &Received| packet::udp_payload(&it.frame) == payload;
        if frames.iter().any(is_it) {
            return;
        }
    }
}

/// The last one posts no buffer to receive into.
#[test]
fn sixty_four_guests_reach_each_other_past_one_that_takes_nothing() {
    // What is usual; each port needs 39, and the daemon has to see to it.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(1024);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    let switch = Switch::start("switch-many", MANY);
    let mut guests: Vec<Guest> = (0..MANY)
        .map(|port| switch.guest(port, ALL, if port == MANY - 1 { 0 } else { 128 }))
        .collect();
    let macs: Vec<[u8; 6]> = guests.iter().map(|guest| guest.mac).collect();
    let deaf = MANY - 1;
    // All are known then; those between were sent to all.
    for port in 0..MANY {
        guests[port].send(
            macs[(port + 1) % MANY],
            packet::PLAIN,
            &packet::udp(1, b"first"),
        );
    }
    let started = Instant::now();
    for _ in 0..2000 {
        guests[0].send(macs[deaf], packet::PLAIN, &packet::udp(2, b"to nobody"));
    }
    let took = started.elapsed();
    for round in 0..5_u8 {
        for (port, guest) in guests.iter_mut().enumerate().take(deaf) {
            let payload = [round, u8::try_from(port).unwrap(), 7];
            guest.send(
                macs[(port + 1) % deaf],
                packet::PLAIN,
                &packet::udp(3, &payload),
            );
        }
        for port in 0..deaf {
            let payload = [round, u8::try_from(port).unwrap(), 7];
            expect(&mut guests[(port + 1) % deaf], &payload);
        }
    }
    let process = Process::serving(&switch.daemon);
    let now = ["Threads", "VmRSS"].map(|field| process.status(field));
    println!(
        "{MANY} guests: {now:?}, {} descriptors",
        process.descriptors().len()
    );
    println!("2000 frames to the one that takes none: {took:?}");
    let number = |text: &String| text.split_whitespace().next().unwrap().parse::<usize>();
    assert!(number(&now[0]).unwrap() <= 8 * MANY, "{now:?}");
    assert!(number(&now[1]).unwrap() <= 2048 * MANY, "{now:?}");
    // What was taken for it is not more than its port holds.
    assert!(switch.metric("net_drops_total{") >= 900);
}

/// Frames a second, and as many at once after a rest: a thread that gets no processor for most of a second
/// loses none of them.
const RATE: u64 = 200;
const LASTS: Duration = Duration::from_secs(3);
/// Whoever waited behind a limited port would take several times as long for what is asked meanwhile.
const PROMPT: Duration = Duration::from_secs(20);
const OVERLOAD: u16 = 77;

/// One client of the control socket, whose thread is there before anything is counted.
struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(switch: &Switch) -> Self {
        let stream = UnixStream::connect(switch.scratch.join("control")).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, command: &str) {
        writeln!(self.0.get_mut(), "{{{command}}}").unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        assert!(answer.starts_with("{\"ok\":"), "{command}: {answer}");
    }
}

/// Says that it is over, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keeps the transmit ring full until it is over.
fn overload(guest: &mut Guest, to: [u8; 6], over: &AtomicBool) {
    let mut frame = packet::udp(OVERLOAD, &[7; 100]);
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&guest.mac);
    let transmit = &mut guest.transmit;
    while !over.load(Ordering::Relaxed) {
        while transmit.exchange().queue().free_descriptors() >= 2 {
            transmit.submit(packet::PLAIN, &frame).unwrap();
        }
        let transmit = transmit.exchange();
        transmit.wait_any(SOON).unwrap();
        // The machine has others to serve.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How many of those frames come until it is over.
fn count(guest: &mut Guest, over: &AtomicBool) -> u64 {
    let mut came = 0;
    while !over.load(Ordering::Relaxed) {
        let frames = guest.receive.receive(SOON).unwrap();
        let is_one = |it: &&Received| packet::udp_port(&it.frame) == Some(OVERLOAD);
        came += frames.iter().filter(is_one).count() as u64;
    }
    came
}

/// One guest sends all it can and may send little, another is sent all there is and may receive little; two others
/// and the control socket do not notice.
#[test]
fn ports_driven_far_beyond_their_limits_for_seconds_are_slow_and_nothing_else_is() {
    let switch = Switch::start_with("switch-overload", 6, |daemon, scratch| {
        daemon.arg("--control").arg(scratch.join("control"))
    });
    let mut client = Client::connect(&switch);
    let mut guests: [Guest; 6] = std::array::from_fn(|port| switch.guest(port, ALL, 128));
    let macs = guests.each_ref().map(|guest| guest.mac);
    for (port, guest) in guests.iter_mut().enumerate() {
        // From here on each is known, and nothing goes to all.
        guest.send(macs[port ^ 1], packet::PLAIN, &packet::udp(1, b"here"));
        guest.send(macs[port ^ 1], packet::PLAIN, &packet::udp(1, b"here"));
    }
    for guest in &mut guests {
        while !guest.receive.receive(MOMENT).unwrap().is_empty() {}
    }
    client.ask(r#""command":"stats""#);
    let before = Process::serving(&switch.daemon).holdings();
    let [slow, to_slow, one, other, swamped, swamps] = &mut guests;
    let (over, began) = (AtomicBool::new(false), Instant::now());
    for (port, direction) in [("p0", "transmit"), ("p4", "receive")] {
        let what = format!(r#""port":"{port}","direction":"{direction}""#);
        let rate = format!(r#""packets":{RATE},"packets-burst":{RATE}"#);
        client.ask(&format!(r#""command":"limit",{what},{rate}"#));
    }
    let (came, took) = std::thread::scope(|scope| {
        let end = End(&over);
        let over = &over;
        scope.spawn(|| overload(slow, macs[1], over));
        scope.spawn(|| overload(swamps, macs[4], over));
        let counts = [&mut *to_slow, &mut *swamped];
        let counts = counts.map(|it| scope.spawn(move || count(it, over)));
        let asked = Instant::now();
        for number in 0..100_u8 {
            one.send(macs[3], packet::PLAIN, &packet::udp(3, &[number]));
            expect(other, &[number]);
            other.send(macs[2], packet::PLAIN, &packet::udp(3, &[number]));
            expect(one, &[number]);
            if number.is_multiple_of(10) {
                client.ask(r#""command":"stats","port":"p0""#);
            }
        }
        let took = asked.elapsed();
        std::thread::sleep(LASTS.saturating_sub(began.elapsed()));
        drop(end);
        (counts.map(|it| it.join().unwrap()), took)
    });
    let lasted = began.elapsed().as_secs_f64();
    println!("{came:?} frames in {lasted:.2} s; 100 each way beside them in {took:?}");
    assert!(took < PROMPT, "the others took {took:?}");
    let expected = lasted * RATE as f64;
    for came in came {
        // What may come at once, and a step of four frames.
        assert!(came as f64 <= expected + (RATE + 8) as f64, "{came}");
        assert!(came as f64 >= expected / 2.0, "{came}");
    }
    let now = Process::serving(&switch.daemon).holdings();
    assert!(
        switch.metric("cause=\"full\"") > 0,
        "nothing was lost on the way"
    );
    for port in ["p0", "p4"] {
        client.ask(&format!(r#""command":"limit","port":"{port}""#));
    }
    let transmit = slow.transmit.exchange();
    while transmit.in_flight() > 0 {
        let done = transmit.wait_any(SOON).unwrap();
        assert!(!done.is_empty(), "held back without a limit");
    }
    // Lost until there is room behind all that waits.
    let (last, deadline) = (b"the last", Instant::now() + SOON);
    let is_last = |it: &Received| packet::udp_payload(&it.frame) == last;
    loop {
        assert!(Instant::now() < deadline, "nothing comes any more");
        swamps.send(macs[4], packet::PLAIN, &packet::udp(3, last));
        let frames = swamped.receive.receive(MOMENT).unwrap();
        if frames.iter().any(is_last) {
            break;
        }
    }
    for now in [now, Process::serving(&switch.daemon).holdings()] {
        let kept = (now.threads, now.descriptors);
        assert_eq!(kept, (before.threads, before.descriptors));
        assert!(now.private_kib < before.private_kib + 8192, "{now:?}");
    }
    assert!(!switch.daemon.stderr().contains("panicked"));
}

/// The frames for each guest wait in room of the process's own.
#[test]
fn a_guest_that_there_is_no_memory_for_hears_nothing_and_the_others_go_on() {
    let mut switch = Switch::start("switch-memory-short", 3);
    let [mut a, mut b] = [0, 1].map(|port| switch.guest(port, ALL, 64));
    let process = Process::serving(&switch.daemon);
    let threads = process.holdings().threads;
    // What its threads took stays for those of the next one; the room for its frames does not.
    drop(switch.guest(2, ALL, 64));
    let deadline = Instant::now() + SOON;
    while process.holdings().threads > threads {
        assert!(Instant::now() < deadline, "its threads stay");
        std::thread::sleep(Duration::from_millis(10));
    }
    process.limit(Resource::Data, "VmData", 1 << 20);
    let mut c = switch.guest(2, ALL, 64);
    let said = switch.daemon.wait_stderr("queue cannot be started", SOON);
    said.unwrap();
    for round in 0..20 {
        a.send(BROADCAST, packet::PLAIN, &packet::udp(1, &[round]));
        b.hears(&[round]);
        b.send(a.mac, packet::PLAIN, &packet::udp(1, &[round]));
        a.hears(&[round]);
    }
    c.hears_nothing();
    process.unlimit(Resource::Data);
    drop(c);
    let mut c = switch.guest(2, ALL, 64);
    let deadline = Instant::now() + SOON;
    while c.receive.receive(MOMENT).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the next one hears nothing");
        a.send(BROADCAST, packet::PLAIN, &packet::udp(1, b"again"));
    }
    assert!(!switch.daemon.stderr().contains("panicked"));
}
