//! Commands to a running daemon.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use disk::several::{Disks, attach, attach_some};
use disk::{ALL, Disk, PROGRAM, SOON};
use lab::frontend::blk::{Blk, Data, kind, status};
use lab::frontend::{GuestMemory, Ticket};
use lab::guest::QemuGuest;
use lab::process::Daemon;
use lab::scratch::Scratch;

fn controlled(test: &str) -> Disk {
    let scratch = Scratch::new(test).unwrap();
    let image = scratch.image("disk.img", 1 << 20).unwrap();
    let control = scratch.join("control");
    Disk::serve(scratch, image, |d| d.arg("--control").arg(control))
}

fn ctl(disk: &Disk, command: &str) -> Output {
    let words = command.split(' ');
    Command::new(PROGRAM)
        .arg("ctl")
        .arg(disk.scratch.join("control"))
        .args(words)
        .output()
        .unwrap()
}

fn grow(disk: &Disk, bytes: u64) {
    std::fs::File::options()
        .write(true)
        .open(&disk.image)
        .unwrap()
        .set_len(bytes)
        .unwrap();
}

#[test]
fn a_grown_image_is_taken_up_while_running() {
    let disk = controlled("blk-resize");
    let (mut front_end, mut blk) = disk.driver(ALL);
    let mut channel = front_end.open_backend_channel().unwrap();
    assert_eq!(
        blk.write(2048, &[7; 512]).unwrap(),
        status::IOERR,
        "beyond the end"
    );
    grow(&disk, 2 << 20);
    let output = ctl(&disk, "resize");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"capacity\":2097152"));
    assert!(
        channel.wait_config_changed(SOON).unwrap(),
        "the front end was not told"
    );
    assert_eq!(front_end.get_config(0, 8).unwrap(), 4096_u64.to_le_bytes());
    assert_eq!(blk.write(2048, &[7; 512]).unwrap(), status::OK);
    assert_eq!(blk.read(2048, 512).unwrap(), (status::OK, vec![7; 512]));
}

#[test]
fn a_driver_that_nobody_remembers_has_no_write_cache_before_it_flushes() {
    let mut disk = controlled("blk-unknown-driver");
    let cache = |disk: &Disk| {
        let told = String::from_utf8(ctl(disk, "stats").stdout).unwrap();
        told.contains(r#""write_cache":true"#)
    };
    let memory = GuestMemory::with_size(32 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let mut blk = Blk::new(front_end.set_up_queue(0, 128).unwrap());
    assert_eq!(blk.write(0, &[1; 4096]).unwrap(), status::OK);
    assert!(cache(&disk), "a new driver");
    disk.daemon.terminate(SOON).unwrap();
    disk.daemon = Daemon::builder(PROGRAM)
        .arg("--control")
        .arg(disk.scratch.join("control"))
        .arg("--socket-path")
        .arg(&disk.socket)
        .arg("--blk-file")
        .arg(&disk.image)
        .spawn_listening(&disk.socket, SOON)
        .unwrap();
    drop(front_end);
    let mut front_end = disk.front_end(ALL, &memory);
    let base = blk.queue().used_idx().unwrap();
    front_end.attach_queue(blk.queue(), base).unwrap();
    assert_eq!(blk.write(0, &[1; 4096]).unwrap(), status::OK);
    assert!(!cache(&disk));
    assert_eq!(blk.flush().unwrap(), status::OK);
    assert!(cache(&disk));
}

#[test]
fn a_disk_does_not_shrink() {
    let disk = controlled("blk-shrink");
    grow(&disk, 512);
    let output = ctl(&disk, "resize");
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("shrunk to 512 bytes; a disk can only grow"),
        "{stderr}"
    );
    assert!(String::from_utf8_lossy(&ctl(&disk, "stats").stdout).contains("1048576"));
}

#[test]
fn nonsense_is_answered_and_the_next_client_served() {
    let disk = controlled("blk-ctl-nonsense");
    let mut stream = UnixStream::connect(disk.scratch.join("control")).unwrap();
    for line in [
        "{}\n",
        "resize\n",
        "{\"command\":\"explode\"}\n",
        "[[[[\n",
        "\n",
    ] {
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        assert!(
            answer.starts_with("{\"error\":\"not a command"),
            "{line:?} gave {answer}"
        );
    }
    drop(stream);
    assert!(ctl(&disk, "stats").status.success());
    disk.assert_serves();
    let nobody = Command::new(PROGRAM)
        .args(["ctl", "/no/such", "stats"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&nobody.stderr);
    assert!(
        stderr.contains("cannot talk to the daemon at /no/such: No such file"),
        "{stderr}"
    );
}

#[test]
fn a_qemu_guest_sees_the_disk_grow() {
    let disk = controlled("blk-grow-qemu");
    let script = "cat /sys/block/vda/size; echo ready; read line; sleep 1; cat /sys/block/vda/size";
    let mut guest = QemuGuest::new(script).blk(&disk.socket).start().unwrap();
    guest.wait_output("ready").unwrap();
    grow(&disk, 4 << 20);
    assert!(ctl(&disk, "resize").status.success());
    guest.write(b"go\n").unwrap();
    let output = guest.wait().unwrap().success().unwrap();
    assert!(
        output.contains("2048") && output.contains("8192"),
        "{output}"
    );
}

/// Reads that complete in one second, many at a time.
fn reads_in_a_second(blk: &mut Blk) -> u64 {
    let until = Instant::now() + Duration::from_secs(1);
    let mut done = 0;
    while Instant::now() < until {
        while blk.queue().in_flight() < 30 {
            blk.submit(kind::IN, 0, Data::FromDevice(512)).unwrap();
        }
        done += blk.wait_any(Duration::from_millis(500)).unwrap().len() as u64;
    }
    done
}

#[test]
fn a_limit_holds_within_a_second_and_can_be_lifted() {
    let disk = controlled("blk-limit");
    let (_front_end, mut blk) = disk.driver(ALL);
    let free = reads_in_a_second(&mut blk);
    assert!(free > 2000, "only {free} reads a second without a limit");
    assert!(ctl(&disk, "limit --iops 300").status.success());
    reads_in_a_second(&mut blk);
    let limited = reads_in_a_second(&mut blk);
    assert!(
        (150..450).contains(&limited),
        "{limited} reads a second with a limit of 300"
    );
    let stats = ctl(&disk, "stats");
    assert!(String::from_utf8_lossy(&stats.stdout).contains("\"iops\":300"));
    assert!(ctl(&disk, "limit").status.success());
    let lifted = reads_in_a_second(&mut blk);
    assert!(
        lifted > 1000,
        "only {lifted} reads a second after the limit was lifted"
    );
}

#[test]
fn a_limited_queue_stops_at_once() {
    let disk = controlled("blk-limit-stop");
    assert!(ctl(&disk, "limit --iops 1 --iops-burst 1").status.success());
    let (mut front_end, mut blk) = disk.driver(ALL);
    for _ in 0..10 {
        blk.submit(kind::IN, 0, Data::FromDevice(512)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    let started = Instant::now();
    let base = front_end.stop_queue(0).unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "the stop took {:?}",
        started.elapsed()
    );
    assert!(
        base < 5,
        "{base} of 10 requests passed a limit of one a second"
    );
    assert_eq!(blk.queue().used_idx().unwrap(), base);
}

/// Requests a second, and as many at once after a rest: a thread that gets no processor for most of a second
/// loses none of them.
const RATE: u64 = 200;
const LASTS: Duration = Duration::from_secs(3);
/// Whoever waited behind the limited disk would take ten times as long for what is asked meanwhile.
const PROMPT: Duration = Duration::from_secs(20);

/// One client of the control socket, whose thread is there before anything is counted.
struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(disks: &Disks) -> Self {
        let stream = UnixStream::connect(disks.scratch.join("ctl")).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.0.get_mut(), "{{{command}}}").unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        assert!(answer.starts_with("{\"ok\":"), "{command}: {answer}");
        answer
    }
}

/// Says that it is over, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What sector `at` holds in the end.
fn content(at: u64) -> Vec<u8> {
    lab::pattern(at, 512)
}

/// Sectors that a queue writes again and again: fewer than requests that its ring holds.
const SECTORS: u64 = 32;

/// Keeps the ring full of writes from sector `first` on until it is over, and leaves it full; how many were done.
fn overload(blk: &mut Blk, first: u64, over: &AtomicBool) -> u64 {
    let (mut sent, mut done) = (0, 0);
    loop {
        while blk.queue().free_descriptors() >= 3 {
            let at = first + sent % SECTORS;
            let data = content(at);
            blk.submit(kind::OUT, at, Data::ToDevice(&data)).unwrap();
            sent += 1;
        }
        if over.load(Ordering::Relaxed) {
            return done;
        }
        done += all_right(blk.wait_any(SOON).unwrap());
    }
}

fn all_right(answers: Vec<(Ticket, u8, Vec<u8>)>) -> u64 {
    assert!(answers.iter().all(|(_, state, _)| *state == status::OK));
    answers.len() as u64
}

/// Both queues of one disk are full all the time; the other disk and the control socket do not notice.
#[test]
fn a_disk_driven_far_beyond_its_limit_for_seconds_is_slow_and_nothing_else_is() {
    let disks = Disks::start("blk-overload", &["a", "b"]);
    let mut client = Client::connect(&disks);
    let (_a_end, mut a) = attach_some(&disks.socket("a"), 2);
    let (_b_end, mut b) = attach(&disks.socket("b"));
    for queue in a.iter_mut().chain([&mut b]) {
        for sector in 0..200 {
            assert_eq!(queue.write(sector, &[1; 512]).unwrap(), status::OK);
        }
    }
    client.ask(r#""command":"stats""#);
    let before = disks.holdings();
    let limit = format!(r#""command":"limit","disk":"a","iops":{RATE},"iops_burst":{RATE}"#);
    let (over, began) = (AtomicBool::new(false), Instant::now());
    client.ask(&limit);
    let (done, took) = std::thread::scope(|scope| {
        let end = End(&over);
        let over = &over;
        let overloads: Vec<_> = (0..)
            .zip(&mut a)
            .map(|(queue, blk)| scope.spawn(move || overload(blk, queue * SECTORS, over)))
            .collect();
        let asked = Instant::now();
        for sector in 0..100 {
            assert_eq!(b.write(sector, &content(sector)).unwrap(), status::OK);
            assert_eq!(b.read(sector, 512).unwrap(), (status::OK, content(sector)));
            if sector % 10 == 0 {
                client.ask(r#""command":"stats","disk":"a""#);
            }
        }
        let took = asked.elapsed();
        std::thread::sleep(LASTS.saturating_sub(began.elapsed()));
        drop(end);
        let done = overloads.into_iter().map(|it| it.join().unwrap());
        (done.sum::<u64>(), took)
    });
    let lasted = began.elapsed().as_secs_f64();
    println!("{done} requests in {lasted:.2} s; 100 writes and reads beside them in {took:?}");
    assert!(took < PROMPT, "the other disk took {took:?}");
    let expected = lasted * RATE as f64;
    // What may come at once, and what both queues took at the same moment.
    assert!(done as f64 <= expected + (RATE + 4) as f64, "{done}");
    assert!(done as f64 >= expected / 2.0, "{done}");
    let now = disks.holdings();
    client.ask(r#""command":"limit","disk":"a""#);
    for blk in &mut a {
        while blk.exchange().in_flight() > 0 {
            let left = all_right(blk.wait_any(SOON).unwrap());
            assert!(left > 0, "held back without a limit");
        }
    }
    for sector in 0..2 * SECTORS {
        let read = a[0].read(sector, 512).unwrap();
        assert_eq!(read, (status::OK, content(sector)), "sector {sector}");
    }
    for now in [now, disks.holdings()] {
        let kept = (now.threads, now.descriptors);
        assert_eq!(kept, (before.threads, before.descriptors));
        assert!(now.private_kib < before.private_kib + 4096, "{now:?}");
    }
    println!("{before:?}, {:?}", disks.holdings());
}
