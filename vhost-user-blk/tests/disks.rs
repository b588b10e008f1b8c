//! Several disks in one process, coming and going while it runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use disk::SOON;
use disk::several::{Disks, attach, attach_some};
use lab::frontend::blk::{Blk, Data, kind, status};
use lab::frontend::{FrontEnd, Ticket};
use lab::guest::{QemuGuest, VhostUser};
use lab::inside::Holdings;
use lab::medium::Medium;
use lab::scratch::Scratch;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn each_disk_has_its_own_content_socket_and_numbers() {
    let disks = Disks::start("blk-several", &["a", "b"]);
    let (_a_end, mut a) = attach(&disks.socket("a"));
    let (_b_end, mut b) = attach(&disks.socket("b"));
    assert_eq!(a.write(0, &[1; 4096]).unwrap(), status::OK);
    assert_eq!(b.write(0, &[2; 512]).unwrap(), status::OK);
    assert_eq!(a.read(0, 512).unwrap(), (status::OK, vec![1; 512]));
    assert_eq!(b.read(0, 512).unwrap(), (status::OK, vec![2; 512]));
    assert_eq!(
        std::fs::read(disks.scratch.join("b.img")).unwrap()[..512],
        [2; 512]
    );
    let told = disks.told(&["stats"]);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(lines[0].starts_with(r#"{"disk":"a","#), "{told}");
    assert!(
        lines[0].contains(r#""bytes_read":512,"bytes_written":4096"#),
        "{told}"
    );
    assert!(lines[1].contains(r#""connected":true"#), "{told}");
    assert!(lines[1].contains(r#""bytes_written":512"#), "{told}");
    assert!(
        lines[1].contains(r#""read":1,"write":1,"flush":0"#),
        "{told}"
    );
    assert_eq!(disks.told(&["stats", "b"]).trim_end(), lines[1]);
}

#[test]
fn disks_come_and_go_while_others_work() {
    let disks = Disks::start("blk-add", &["a"]);
    let (_a_end, mut a) = attach(&disks.socket("a"));
    let spec = Disks::describe(&disks.scratch, "b");
    let told = disks.told(&["add", &spec]);
    assert!(
        told.contains(r#""disk":"b""#) && told.contains(r#""capacity":1048576"#),
        "{told}"
    );
    let (b_end, mut b) = attach(&disks.socket("b"));
    assert_eq!(b.write(8, &[9; 512]).unwrap(), status::OK);
    // In the middle of its work.
    for _ in 0..20 {
        b.submit(kind::IN, 0, Data::FromDevice(4096)).unwrap();
    }
    assert_eq!(disks.told(&["remove", "b"]), "");
    assert!(!disks.socket("b").exists());
    assert_eq!(
        b.queue().used_idx().unwrap(),
        21,
        "what was taken is answered before the connection ends"
    );
    drop((b_end, b));
    assert_eq!(a.write(0, &[3; 512]).unwrap(), status::OK);
    assert!(!disks.told(&["stats"]).contains(r#""disk":"b""#));
    // Its image is free, its name too.
    disks.told(&["add", &spec]);
    let (_b_end, mut b) = attach(&disks.socket("b"));
    assert_eq!(b.read(8, 512).unwrap(), (status::OK, vec![9; 512]));
    assert_eq!(a.read(0, 512).unwrap(), (status::OK, vec![3; 512]));
}

#[test]
fn a_daemon_may_start_and_end_up_without_disks() {
    let mut disks = Disks::start("blk-none", &[]);
    assert_eq!(disks.told(&["stats"]), "");
    assert!(disks.refused(&["resize"]).contains("no disk is served"));
    disks.told(&["add", &Disks::describe(&disks.scratch, "a")]);
    disks.told(&["remove"]);
    assert_eq!(disks.told(&["stats"]), "");
    disks.daemon.terminate(SOON).unwrap();
    assert!(!disks.scratch.join("ctl").exists());
}

#[test]
fn what_cannot_be_done_is_said_and_changes_nothing() {
    let disks = Disks::start("blk-refuse", &["a", "b"]);
    let spec = |name: &str, image: &str| {
        let dir = disks.scratch.path().display();
        format!("path={dir}/{image},socket={dir}/{name}.sock,name={name}")
    };
    disks.scratch.image("c.img", 1 << 20).unwrap();
    for (words, said) in [
        (vec!["remove"], "which disk? There are a, b"),
        (vec!["remove", "z"], "there is no disk 'z'"),
        (vec!["limit", "z", "--iops", "1"], "there is no disk 'z'"),
        (
            vec!["add", &spec("a", "c.img")],
            "there is a disk 'a' already",
        ),
        (
            vec!["add", &spec("c", "a.img")],
            "in use by another process",
        ),
        (vec!["add", &spec("c", "no.img")], "No such file"),
        (vec!["add", "path=x,fd=3"], "at the start only"),
        (vec!["add", "path=x"], "socket=PATH"),
        (vec!["add", "path"], "key=value"),
    ] {
        let words: Vec<&str> = words.iter().map(|word| &**word).collect();
        let answer = disks.refused(&words);
        assert!(answer.contains(said), "{words:?}: {answer}");
    }
    assert!(!disks.socket("c").exists());
    for name in ["a", "b"] {
        let (_end, mut blk) = attach(&disks.socket(name));
        assert_eq!(blk.write(0, &[5; 512]).unwrap(), status::OK);
    }
}

#[test]
fn a_limit_on_one_disk_leaves_the_others_alone() {
    let disks = Disks::start("blk-limit-one", &["a", "b"]);
    disks.told(&["limit", "a", "--iops", "1", "--iops-burst", "1"]);
    let (mut a_end, mut a) = attach(&disks.socket("a"));
    let (_b_end, mut b) = attach(&disks.socket("b"));
    for _ in 0..10 {
        a.submit(kind::IN, 0, Data::FromDevice(512)).unwrap();
    }
    for sector in 0..200 {
        assert_eq!(b.read(sector, 512).unwrap().0, status::OK);
    }
    assert!(a_end.stop_queue(0).unwrap() < 5, "the limit did not hold");
}

#[test]
fn silent_clients_hold_up_nobody() {
    let disks = Disks::start("blk-silent", &["a"]);
    let silent: Vec<UnixStream> = (0..7)
        .map(|_| UnixStream::connect(disks.scratch.join("ctl")).unwrap())
        .collect();
    let started = Instant::now();
    disks.told(&["stats"]);
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(silent);
}

#[test]
fn with_once_the_process_ends_with_the_last_disk() {
    let mut disks = Disks::start_with("blk-once-two", &["a", "b"], &["--once"]);
    drop(attach(&disks.socket("a")));
    let (b_end, mut b) = attach(&disks.socket("b"));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(b.write(0, &[5; 512]).unwrap(), status::OK);
    assert!(!disks.socket("a").exists());
    drop((b_end, b));
    let exit = disks.daemon.wait_exit(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
}

/// A loop device over a sparse image on a file system too small for it.
struct FailingDevice {
    device: String,
    mounted: PathBuf,
}

impl FailingDevice {
    fn make(scratch: &Scratch) -> Self {
        lab::need::root().unwrap();
        let mounted = scratch.join("small");
        std::fs::create_dir(&mounted).unwrap();
        let ran = |command: &mut Command| {
            let output = command.output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{command:?}: {errors}");
            String::from_utf8(output.stdout).unwrap()
        };
        ran(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(&mounted));
        let backing = mounted.join("backing");
        let file = std::fs::File::create(&backing).unwrap();
        file.set_len(64 << 20).unwrap();
        let device = ran(Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&backing));
        let device = device.trim_end().to_owned();
        Self { device, mounted }
    }
}

impl Drop for FailingDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
        let _ = Command::new("umount").arg(&self.mounted).status();
    }
}

#[test]
fn a_failing_device_and_a_truncated_image_leave_the_others_alone() {
    let disks = Disks::start("blk-fail-one", &["good", "short"]);
    let failing = FailingDevice::make(&disks.scratch);
    let socket = disks.socket("bad");
    let (device, at) = (&failing.device, socket.display());
    disks.told(&[
        "add",
        &format!("path={device},socket={at},name=bad,direct=on"),
    ]);
    let short = std::fs::File::options()
        .write(true)
        .open(disks.scratch.join("short.img"))
        .unwrap();
    short.set_len(4096).unwrap();
    let (bad_end, mut bad) = attach(&socket);
    let (_short_end, mut short) = attach(&disks.socket("short"));
    let (_good_end, mut good) = attach(&disks.socket("good"));
    let bytes = lab::pattern(5, 1 << 20);
    let answers: Vec<u8> = (0..16)
        .map(|n| bad.write(n * 2048, &bytes).unwrap())
        .collect();
    assert_eq!(
        (answers[0], answers[15]),
        (status::OK, status::IOERR),
        "{answers:?}"
    );
    for sector in 8..40 {
        assert_eq!(short.read(sector, 512).unwrap().0, status::IOERR);
        assert_eq!(good.write(sector, &[7; 512]).unwrap(), status::OK);
        assert_eq!(good.read(sector, 512).unwrap(), (status::OK, vec![7; 512]));
    }
    assert_eq!(short.read(0, 4096).unwrap().0, status::OK);
    assert!(bad.read(0, 1 << 20).unwrap() == (status::OK, bytes));
    let log = disks.daemon.stderr();
    for (disk, what) in [
        ("bad", "No space left on device"),
        ("short", "the image ends before its capacity"),
    ] {
        let named = format!("device{{name=\"{disk}\"}}");
        let said = |line: &&str| line.contains(what) && line.contains(&named);
        assert_eq!(log.lines().filter(said).count(), 1, "{disk}: {log}");
    }
    drop((bad_end, bad));
    disks.told(&["remove", "bad"]);
}

#[test]
fn a_qemu_guest_has_two_disks_of_one_daemon() {
    let disks = Disks::start("blk-qemu-two", &["a", "b"]);
    let script = "
        set -e
        dd if=/dev/urandom of=/dev/vda bs=64k count=16 oflag=direct 2>/dev/null
        dd if=/dev/vda of=/dev/vdb bs=64k oflag=direct 2>/dev/null
        sync";
    let guest = QemuGuest::new(script)
        .blk(VhostUser::new(disks.socket("a")))
        .blk(VhostUser::new(disks.socket("b")));
    guest.run().unwrap().success().unwrap();
    let image = |name: &str| std::fs::read(disks.scratch.join(name)).unwrap();
    assert!(image("a.img") == image("b.img"));
    assert!(image("a.img")[..4096] != [0; 4096]);
}

/// Writes `count` blocks at once, each of its own content; done and in order or not.
fn submit_blocks(blk: &mut Blk, mark: u64, count: u64) -> Vec<Ticket> {
    let submit = |block| {
        let bytes = lab::pattern(mark << 16 | block, 4096);
        let data = Data::ToDevice(&bytes);
        blk.submit(kind::OUT, block * 8, data).unwrap()
    };
    (0..count).map(submit).collect()
}

fn assert_blocks(blk: &mut Blk, mark: u64, count: u64) {
    for block in 0..count {
        let expected = (status::OK, lab::pattern(mark << 16 | block, 4096));
        assert!(
            blk.read(block * 8, 4096).unwrap() == expected,
            "disk {mark}"
        );
    }
}

/// A disk whose image lies on `medium`, for `--disk`, and its socket.
fn late_disk(medium: &Medium) -> (String, PathBuf) {
    let (image, socket) = (
        medium.mount.join("slow.img"),
        medium.scratch.join("slow.sock"),
    );
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(4 << 20).unwrap();
    let (image, at) = (image.display(), socket.display());
    (
        format!("path={image},socket={at},name=slow,queues=2"),
        socket,
    )
}

#[test]
fn a_signal_waits_for_a_disk_that_is_being_removed() {
    let medium = Medium::new("blk-leaving");
    let (spec, socket) = late_disk(&medium);
    let mut disks = Disks::start_with("blk-signal-leaving", &["a"], &["--disk", &spec]);
    let (_front_end, mut late) = attach(&socket);
    assert_eq!(late.write(0, &[1; 4096]).unwrap(), status::OK);
    let held = medium.hold();
    submit_blocks(&mut late, 1, 16);
    disks.wait_in_flight("slow", 16);
    let mut removing = Command::new(disk::PROGRAM);
    let (control, words) = (disks.scratch.join("ctl"), ["remove", "slow"]);
    let mut removing = removing
        .arg("ctl")
        .arg(control)
        .args(words)
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    disks.daemon.signal(rustix::process::Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        disks.daemon.is_running(),
        "it ended before the requests were done"
    );
    held.answer();
    assert!(disks.daemon.wait_exit(SOON).unwrap().status.success());
    assert!(!socket.exists(), "the removed disk's socket is left");
    // Whether it still got its answer is chance.
    removing.wait().unwrap();
}

/// The image of one disk lies where nothing is answered for seconds, that of the other elsewhere.
#[test]
fn a_disk_that_answers_late_holds_up_no_other_and_gives_no_error() {
    let medium = Medium::new("blk-late");
    let (spec, slow) = late_disk(&medium);
    let mut disks = Disks::start_with("blk-not-late", &["fast"], &["--disk", &spec]);
    let (mut slow_end, mut late) = attach_some(&slow, 2);
    let (_fast_end, mut fast) = attach(&disks.socket("fast"));
    for queue in &mut late {
        assert_eq!(queue.write(0, &[1; 4096]).unwrap(), status::OK);
    }
    let held = medium.hold();
    let mut late = late.into_iter();
    let (mut one, mut two) = (late.next().unwrap(), late.next().unwrap());
    let tickets = [
        submit_blocks(&mut one, 1, 24),
        submit_blocks(&mut two, 1, 24),
    ];
    for round in 0..100 {
        assert_eq!(fast.write(round, &[2; 512]).unwrap(), status::OK);
        assert_eq!(fast.read(round, 512).unwrap(), (status::OK, vec![2; 512]));
    }
    disks.wait_in_flight("slow", 48);
    std::thread::scope(|scope| {
        // The answer is that everything taken is done: it waits for the disk.
        let stopped = scope.spawn(|| slow_end.stop_queue(0).unwrap());
        std::thread::sleep(Duration::from_secs(2));
        assert!(
            !stopped.is_finished(),
            "an answer before the requests were done"
        );
        let early = [&mut one, &mut two].map(|queue| queue.queue().used_idx().unwrap());
        assert_eq!(early, [1, 1], "done by a disk that stands still");
        held.answer();
        assert_eq!(stopped.join().unwrap(), 25);
    });
    for (queue, tickets) in [&mut one, &mut two].into_iter().zip(tickets) {
        for ticket in tickets {
            assert_eq!(queue.wait(ticket).unwrap().0, status::OK);
        }
    }
    assert_blocks(&mut two, 1, 24);
    // A signal waits for the disk as well.
    let held = medium.hold();
    let tickets = submit_blocks(&mut two, 3, 16);
    disks.wait_in_flight("slow", 16);
    disks.daemon.signal(rustix::process::Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(disks.daemon.is_running(), "ended with requests in flight");
    held.answer();
    let exit = disks.daemon.wait_exit(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
    let done = tickets.into_iter().map(|ticket| two.wait(ticket));
    assert!(done.into_iter().all(|done| done.unwrap().0 == status::OK));
}

const MANY: u64 = 64;

#[test]
fn sixty_four_guests_at_once_each_have_their_disk() {
    let names: Vec<String> = (0..MANY).map(|n| format!("d{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // What is usual; each disk needs 27, and the daemon has to see to it.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(1024);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    let disks = Disks::start("blk-many", &names);
    let mut before = None;
    for round in 0..2 {
        let mut guests: Vec<(FrontEnd, Blk)> = names
            .iter()
            .map(|name| attach(&disks.socket(name)))
            .collect();
        let mut tickets = Vec::new();
        for (mark, (_, blk)) in (round * MANY..).zip(&mut guests) {
            tickets.push(submit_blocks(blk, mark, 24));
        }
        for ((_, blk), tickets) in guests.iter_mut().zip(tickets) {
            for ticket in tickets {
                assert_eq!(blk.wait(ticket).unwrap().0, status::OK);
            }
            assert_eq!(blk.flush().unwrap(), status::OK);
        }
        for (mark, (_, blk)) in (round * MANY..).zip(&mut guests) {
            assert_blocks(blk, mark, 24);
        }
        let now = disks.holdings();
        println!("{MANY} guests: {now:?}");
        let Holdings {
            threads,
            descriptors,
            resident_kib,
            ..
        } = now;
        assert!(threads <= 8 * MANY && descriptors <= 40 * MANY, "{now:?}");
        // Guest memory that the daemon has touched counts: 24 blocks and the rings of each.
        assert!(resident_kib < 1024 * MANY, "{now:?}");
        if let Some(before) = before.replace((threads, descriptors)) {
            assert_eq!((threads, descriptors), before, "more for the next guests");
        }
        drop(guests);
        let deadline = Instant::now() + SOON;
        while disks.told(&["stats"]).contains(r#""connected":true"#) {
            assert!(Instant::now() < deadline, "front ends that are gone");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Says `message` again and again and reads nothing, until there is no room for it. How much that took.
fn talk_until_full(socket: &Path, message: &[u8]) -> (UnixStream, usize) {
    // The control socket, which a start waits for, is there before the disks'.
    let deadline = Instant::now() + SOON;
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    stream.set_nonblocking(true).unwrap();
    let (mut sent, mut refusals) = (0, 0);
    while refusals < 50 {
        let rest = &message[sent % message.len()..];
        match stream.write(rest) {
            Ok(written) => (sent, refusals) = (sent + written, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refusals += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            // A client that reads nothing for ten seconds is left.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
                break;
            }
        }
        assert!(sent < 16 << 20, "{} takes all", socket.display());
    }
    (stream, sent)
}

/// What the daemon answers has no end for them but the socket's.
#[test]
fn who_asks_and_never_reads_is_not_listened_to_any_more_and_holds_up_nobody() {
    let mut disks = Disks::start("blk-never-read", &["a", "b"]);
    // `VHOST_USER_GET_FEATURES`, version 1, without a payload.
    let get_features: Vec<u8> = [1_u32, 1, 0]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    let front_end = talk_until_full(&disks.socket("a"), &get_features);
    let stats = br#"{"command":"stats"}"#;
    let client = talk_until_full(&disks.scratch.join("ctl"), &[&stats[..], b"\n"].concat());
    println!("bytes taken: {} and {}", front_end.1, client.1);
    let (_b_end, mut b) = attach(&disks.socket("b"));
    for block in 0..100 {
        assert_eq!(b.write(block, &[2; 512]).unwrap(), status::OK);
    }
    assert!(disks.told(&["stats", "b"]).contains(r#""write":100"#));
    let kib = disks.holdings().resident_kib;
    assert!(kib < 64 << 10, "{kib} KiB");
    // Gone, it makes room for the next.
    drop(front_end);
    attach(&disks.socket("a"));
    let _again = talk_until_full(&disks.socket("a"), &get_features);
    let exit = disks.daemon.terminate(SOON).unwrap();
    assert!(exit.status.success(), "{}", exit.stderr);
}
