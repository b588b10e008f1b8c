//! Guests, front ends and daemons come and go.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use lab::frontend::vsock::{Vsock, op};
use lab::frontend::{DriverQueue, FrontEnd};
use lab::inside::Process;
use lab::process::Daemon;
use support::guest::{self, Guest, Id, SEND};
use support::{Host, PROGRAM, SOON, answered};

const MOMENT: Duration = Duration::from_millis(200);

fn connected(host: &Host, guest: &mut Guest) -> (UnixStream, Id) {
    guest.listening.insert(80);
    let client = host.ask(80);
    let id = guest.accept();
    assert!(answered(&client));
    (client, id)
}

fn works(guest: &mut Guest, stream: &mut UnixStream, id: Id) {
    stream.write_all(b"ping").unwrap();
    assert_eq!(guest.read(id, 4), b"ping");
    guest.send_all(id, b"pong");
    let mut got = [0; 4];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"pong");
}

fn ends(stream: &mut UnixStream) {
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

/// Whether the guest is told, within a moment or soon, that its connections are lost.
fn told_of_reset(events: &mut DriverQueue, wait: Duration) -> bool {
    let used = events.wait_used(wait).unwrap();
    assert!(used.iter().all(|event| event.len == 4));
    !used.is_empty()
}

/// The guest never hears of them.
#[test]
fn programs_that_hang_up_while_the_guest_takes_nothing_leave_nothing_behind() {
    let host = Host::start("vsock-hang-up");
    let mut guest = Guest::with_buffers(&host, 0, 4096);
    let process = Process::serving(&host.daemon);
    let before = process.holdings().descriptors;
    for begun in 1..=50 {
        let client = host.ask(80);
        host.wait_metric("ringside_vsock_begun_total", begun);
        drop(client);
        host.wait_metric("ringside_vsock_connections", 0);
    }
    let now = process.holdings().descriptors;
    assert!(now <= before + 2, "{now} descriptors, and before {before}");
    guest.driver.post(1).unwrap();
    assert!(!guest.pump(MOMENT));
    host.check();
}

#[test]
fn the_guest_knows_its_id() {
    let host = Host::start("vsock-config");
    let mut guest = Guest::new(&host);
    let config = guest.front_end.get_config(0, 8).unwrap();
    assert_eq!(config, support::CID.to_le_bytes());
    let negotiated = guest.front_end.negotiated().unwrap();
    assert_eq!(negotiated.queues, Some(3));
    assert_eq!(negotiated.offered & 7, 1, "streams and nothing else");
}

/// A paused guest goes on where it was; what programs send meanwhile waits.
#[test]
fn connections_outlive_a_pause() {
    let host = Host::start("vsock-pause");
    let mut guest = Guest::new(&host);
    let mut events = guest.events();
    let (mut stream, id) = connected(&host, &mut guest);
    for round in 0..20_u8 {
        works(&mut guest, &mut stream, id);
        let rx = guest.front_end.stop_queue(0).unwrap();
        let tx = guest.front_end.stop_queue(1).unwrap();
        stream.write_all(&[round; 1000]).unwrap();
        let receive = guest.driver.receive_queue().handle().unwrap();
        guest.front_end.attach_queue(&receive, rx).unwrap();
        let transmit = guest.driver.transmit().queue().handle().unwrap();
        guest.front_end.attach_queue(&transmit, tx).unwrap();
        assert_eq!(guest.read(id, 1000), [round; 1000]);
    }
    assert!(!told_of_reset(&mut events, MOMENT));
    host.check();
}

/// The guest boots again: its programs on the host see the end, and the new one is not told of
/// connections that it never had.
#[test]
fn a_guest_that_boots_again_has_no_connections() {
    let host = Host::start("vsock-reboot");
    let mut guest = Guest::new(&host);
    let mut events = guest.events();
    let (mut stream, _) = connected(&host, &mut guest);
    let waiting = UnixStream::connect(host.scratch.join("v")).unwrap();
    host.wait_metric("ringside_vsock_connections", 2);
    for queue in [0, 1, 2] {
        guest.front_end.stop_queue(queue).unwrap();
    }
    guest.driver = Vsock::start(&mut guest.front_end, 64, 4096).unwrap();
    guest.sockets.clear();
    ends(&mut stream);
    drop(waiting);
    let (mut stream, id) = connected(&host, &mut guest);
    works(&mut guest, &mut stream, id);
    assert!(!told_of_reset(&mut events, MOMENT));
    host.check();
}

/// Without its guest no connection is of use; with the next one, all is new.
#[test]
fn programs_see_the_end_of_the_machine() {
    let host = Host::start("vsock-machine");
    let mut guest = Guest::new(&host);
    let (mut stream, id) = connected(&host, &mut guest);
    let piece = lab::pattern(6, 2 << 20);
    let mut sent = 0;
    loop {
        let count = guest.send(id, &piece[sent..]);
        sent += count;
        if count == 0 && !guest.pump(MOMENT) {
            break;
        }
    }
    drop(guest);
    // What the guest had sent is there all the same.
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == piece[..sent], "{} of {sent} bytes", got.len());
    let mut guest = Guest::new(&host);
    let (mut stream, id) = connected(&host, &mut guest);
    works(&mut guest, &mut stream, id);
    host.check();
}

/// After `kill -9` the guest learns that its connections are lost, and makes new ones.
#[test]
fn a_daemon_that_was_killed_is_replaced() {
    let mut host = Host::start("vsock-kill");
    let mut guest = Guest::new(&host);
    let mut events = guest.events();
    for round in 0..5 {
        let (mut stream, id) = connected(&host, &mut guest);
        works(&mut guest, &mut stream, id);
        assert!(!told_of_reset(&mut events, Duration::from_millis(50)));
        host.replace();
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        let mut front_end = guest::connect(&host, &guest.memory);
        let queues = [
            guest.driver.receive_queue().handle().unwrap(),
            guest.driver.transmit().queue().handle().unwrap(),
            events.handle().unwrap(),
        ];
        for queue in &queues {
            let base = queue.used_idx().unwrap();
            front_end.attach_queue(queue, base).unwrap();
        }
        guest.front_end = front_end;
        assert!(told_of_reset(&mut events, SOON), "round {round}");
        guest::post_event_buffer(&mut events, &guest.memory);
        // Who has not heard of it hears it now.
        guest.say(id, op::RW, 0);
        guest.wait("a reset", |guest| guest.sockets[&id].reset);
        guest.sockets.clear();
    }
    host.check();
}

/// A disconnect of the same guest's front end loses connections, too.
#[test]
fn a_front_end_that_comes_back_is_told() {
    let host = Host::start("vsock-back");
    let mut guest = Guest::new(&host);
    let mut events = guest.events();
    let (mut stream, _) = connected(&host, &mut guest);
    let queues = [
        guest.driver.receive_queue().handle().unwrap(),
        guest.driver.transmit().queue().handle().unwrap(),
        events.handle().unwrap(),
    ];
    let bases = [0, 1, 2].map(|queue| guest.front_end.stop_queue(queue).unwrap());
    let memory = guest.memory.clone();
    // The daemon serves one after another: the first has to go before.
    let nobody = UnixStream::pair().unwrap().0;
    guest.front_end = FrontEnd::from_stream(nobody).unwrap();
    guest.front_end = guest::connect(&host, &memory);
    for (queue, base) in queues.iter().zip(bases) {
        guest.front_end.attach_queue(queue, base).unwrap();
    }
    ends(&mut stream);
    assert!(told_of_reset(&mut events, SOON));
    host.check();
}

#[test]
fn the_daemon_is_closed_in_and_leaves_nothing() {
    let mut host = Host::start("vsock-inside");
    let mut guest = Guest::new(&host);
    let _events = guest.events();
    let (mut stream, id) = connected(&host, &mut guest);
    works(&mut guest, &mut stream, id);
    let inside = Process::serving(&host.daemon);
    inside.assert_powerless(0);
    for taken in ["net", "ipc"] {
        let ours = Process::of(std::process::id()).namespace(taken);
        assert_ne!(inside.namespace(taken), ours, "{taken}");
    }
    let threads = inside.threads("Seccomp_filters");
    for name in [
        "session", "queue0", "queue1", "queue2", "signals", "metrics",
    ] {
        let filters = threads.iter().find(|(known, _)| known == name);
        assert_eq!(filters.unwrap().1, "2", "{name}");
    }
    let view = lab::view::view(host.daemon.serving_pid().unwrap(), &[]).unwrap();
    lab::view::assert_documented("vhost-user-vsock", &view);
    assert!(host.daemon.terminate(SOON).unwrap().status.success());
    ends(&mut stream);
    for file in ["v", "vsock.sock", "metrics.sock"] {
        assert!(!host.scratch.join(file).exists(), "{file}");
    }
    host.check();
}

#[test]
fn what_cannot_be_had_is_said_at_the_start() {
    let host = Host::start("vsock-start");
    let second = |path: &str, more: &[&str]| {
        let mut daemon = Daemon::builder(PROGRAM)
            .args(["--cid", "3", "--socket-path"])
            .arg(host.scratch.join("second.sock"))
            .arg("--uds-path")
            .arg(host.scratch.join(path))
            .args(more)
            .spawn()
            .unwrap();
        assert!(!daemon.wait_exit(SOON).unwrap().status.success());
        daemon.stderr()
    };
    let taken = second("v", &[]);
    assert!(taken.contains("in use by another process"), "{taken}");
    assert!(host.scratch.join("v").exists(), "it took the other's away");
    host.scratch.file("file", "x").unwrap();
    let file = second("file", &[]);
    assert!(file.contains("is not a socket"), "{file}");
    let nowhere = second("no/where", &[]);
    assert!(nowhere.contains("no/where"), "{nowhere}");
    let shown = Command::new(PROGRAM).arg("--print-capabilities").output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    assert!(shown.contains("\"type\": \"vsock\""), "{shown}");
}

/// Programs that come before their guest wait for it.
#[test]
fn programs_may_come_before_the_guest() {
    let host = Host::start("vsock-early");
    let mut early: Vec<UnixStream> = (0..100).map(|_| host.ask(80)).collect();
    let mut guest = Guest::new(&host);
    guest.listening.insert(80);
    for _ in 0..early.len() {
        guest.accept();
    }
    assert!(early.iter().all(answered));
    let (mut stream, id) = (early.pop().unwrap(), guest.sockets.len());
    assert_eq!(id, 100);
    // Which of the guest's sockets is whose does not matter here.
    stream.write_all(b"ping").unwrap();
    guest.wait("bytes", |guest| {
        guest.sockets.values().any(|it| it.received == b"ping")
    });
    host.check();
}

/// A daemon that is out of descriptors lets programs in when it has some again, and does not spin.
#[test]
fn programs_wait_while_descriptors_are_short() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let host = Host::start("vsock-descriptors");
    let mut guest = Guest::new(&host);
    guest.listening.insert(80);
    let pid = host.daemon.serving_pid().unwrap();
    let held = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count();
    let limit = |current| {
        let pid = Pid::from_raw(pid.cast_signed());
        let limit = Rlimit {
            current: Some(current),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    };
    limit(held as u64);
    let client = host.ask(80);
    assert!(!guest.pump(MOMENT));
    let ticks = host.daemon.cpu_ticks().unwrap();
    assert!(!guest.pump(MOMENT));
    assert!(host.daemon.cpu_ticks().unwrap() <= ticks + 2, "it spins");
    limit(1000);
    guest.accept();
    assert!(answered(&client));
}

/// An idle device with idle connections costs nothing.
#[test]
fn idle_it_sleeps() {
    let host = Host::start("vsock-idle");
    let mut guest = Guest::new(&host);
    let (mut stream, id) = connected(&host, &mut guest);
    works(&mut guest, &mut stream, id);
    // Half closed, with the hang-up known: nothing that epoll would tell again and again.
    let (half, other) = connected(&host, &mut guest);
    half.shutdown(std::net::Shutdown::Write).unwrap();
    guest.wait("an end", |guest| guest.sockets[&other].shut == SEND);
    std::thread::sleep(MOMENT);
    let before = host.metric("ringside_wakeups_total");
    std::thread::sleep(Duration::from_millis(500));
    let after = host.metric("ringside_wakeups_total");
    assert!(after <= before + 2, "{} wake-ups", after - before);
}
