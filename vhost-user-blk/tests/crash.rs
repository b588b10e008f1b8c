//! `kill -9` at any moment: the next process does what was in flight once more.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use disk::{ALL, Disk, PROGRAM, SOON};
use lab::frontend::blk::{Blk, Data, kind, status};
use lab::frontend::{FrontEnd, GuestMemory, Ticket, features};
use lab::guest::{QemuGuest, VhostUser};
use lab::process::Daemon;

const BLOCK: usize = 16384;
const BLOCKS: u64 = 128;
const ROUNDS: u64 = 50;

/// Starts the daemon, or starts it again, on the disk's image and state directory.
fn start(disk: &Disk) -> Daemon {
    Daemon::builder(PROGRAM)
        .args(["--direct", "--queues", "4", "--socket-path"])
        .arg(&disk.socket)
        .arg("--blk-file")
        .arg(&disk.image)
        .arg("--state-dir")
        .arg(disk.scratch.path())
        .arg("--control")
        .arg(disk.scratch.join("control"))
        .spawn_listening(&disk.socket, SOON)
        .unwrap()
}

/// Gives an order again and again, until it succeeds and its answer is as wanted.
fn ctl_until(disk: &Disk, order: &[&str], wanted: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + SOON;
    loop {
        let mut ctl = Command::new(PROGRAM);
        ctl.arg("ctl").arg(disk.scratch.join("control"));
        let output = ctl.args(order).output().unwrap();
        if output.status.success() && wanted(&String::from_utf8_lossy(&output.stdout)) {
            return;
        }
        assert!(Instant::now() < deadline, "{output:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Limits the disk's rate, once the control socket is there; by no options, not at all.
fn limit(disk: &Disk, options: &[&str]) {
    ctl_until(disk, &[&["limit"], options].concat(), |_| true);
}

fn disk(test: &str) -> Disk {
    let mut disk = Disk::start(test, 16 << 20);
    disk.daemon.terminate(SOON).unwrap();
    disk.daemon = start(&disk);
    disk
}

/// A guest that overwrites blocks again and again, many at a time, and knows what it wrote.
struct Load {
    blk: Blk,
    in_flight: HashMap<Ticket, (u64, u64)>,
    acknowledged: HashMap<u64, u64>,
    version: u64,
}

impl Load {
    /// Writes to every block that has no write in flight.
    fn submit(&mut self) {
        for block in 0..BLOCKS {
            if self.in_flight.len() >= 40 {
                break;
            }
            // Another order each time.
            let block = (block * 37 + self.version) % BLOCKS;
            if self.in_flight.values().any(|(busy, _)| *busy == block) {
                continue;
            }
            self.version += 1;
            let bytes = content(block, self.version);
            let sector = block * (BLOCK as u64 / 512);
            let ticket = self
                .blk
                .stage(kind::OUT, sector, Data::ToDevice(&bytes))
                .unwrap();
            self.in_flight.insert(ticket, (block, self.version));
        }
        self.blk.kick().unwrap();
    }

    /// Takes what is done, for at most `time`.
    fn reap(&mut self, time: Duration) {
        for (ticket, status, _) in self.blk.wait_any(time).unwrap() {
            let (block, version) = self.in_flight.remove(&ticket).unwrap();
            assert_eq!(status, status::OK, "block {block}, version {version}");
            self.acknowledged.insert(block, version);
        }
    }
}

fn content(block: u64, version: u64) -> Vec<u8> {
    let mut bytes = lab::pattern(block << 32 | version, BLOCK);
    bytes[..8].copy_from_slice(&version.to_le_bytes());
    bytes
}

fn connect(disk: &Disk, memory: &GuestMemory, wanted: u64) -> FrontEnd {
    disk.front_end(wanted, memory)
}

fn survive(test: &str, wanted: u64) {
    let mut disk = disk(test);
    let memory = GuestMemory::with_size(32 << 20).unwrap();
    let mut front_end = connect(&disk, &memory, wanted);
    let blk = Blk::new(front_end.set_up_queue(0, 128).unwrap());
    let mut load = Load {
        blk,
        in_flight: HashMap::new(),
        acknowledged: HashMap::new(),
        version: 0,
    };
    for round in 0..ROUNDS {
        let until = Instant::now() + Duration::from_micros(500 + round * 397 % 20_000);
        while Instant::now() < until {
            load.submit();
            load.reap(Duration::from_secs(1));
        }
        load.submit();
        disk.daemon.kill().unwrap();
        drop(front_end);
        disk.daemon = start(&disk);
        front_end = connect(&disk, &memory, wanted);
        let base = load.blk.queue().used_idx().unwrap();
        front_end.attach_queue(load.blk.queue(), base).unwrap();
        let deadline = Instant::now() + SOON;
        while !load.in_flight.is_empty() {
            assert!(
                Instant::now() < deadline,
                "round {round}: {} lost",
                load.in_flight.len()
            );
            load.reap(Duration::from_secs(1));
        }
    }
    assert!(
        load.version > ROUNDS * 40,
        "hardly any load: {} writes",
        load.version
    );
    for (block, version) in &load.acknowledged {
        let (status, bytes) = load.blk.read(block * (BLOCK as u64 / 512), BLOCK).unwrap();
        assert_eq!(status, status::OK);
        assert!(
            bytes == content(*block, *version),
            "block {block} lost version {version}"
        );
    }
}

#[test]
fn no_write_is_lost_over_fifty_kills() {
    survive("blk-crash", ALL);
}

#[test]
fn no_write_is_lost_over_fifty_kills_without_event_idx() {
    survive("blk-crash-flags", ALL & !features::EVENT_IDX);
}

/// How many requests of an earlier process the daemon does once more, once it says so.
fn left_over(disk: &Disk) -> usize {
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        let log = disk.daemon.stderr();
        let told = log.lines().find(|line| line.contains("once more"));
        if let Some((_, count)) = told.and_then(|line| line.split_once("left_over=")) {
            return count.trim().parse().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    0
}

/// A queue stops only behind what an earlier process left: a rate limit must not make that wait.
#[test]
fn a_limit_holds_up_no_stop_behind_what_was_left() {
    let mut disk = disk("blk-left-limited");
    let memory = GuestMemory::with_size(32 << 20).unwrap();
    let mut front_end = connect(&disk, &memory, ALL);
    let mut load = Load {
        blk: Blk::new(front_end.set_up_queue(0, 128).unwrap()),
        in_flight: HashMap::new(),
        acknowledged: HashMap::new(),
        version: 0,
    };
    for round in 0..ROUNDS {
        load.submit();
        std::thread::sleep(Duration::from_micros(round * 100));
        disk.daemon.kill().unwrap();
        drop(front_end);
        disk.daemon = start(&disk);
        limit(&disk, &["--iops", "1", "--iops-burst", "1"]);
        front_end = connect(&disk, &memory, ALL);
        let base = load.blk.queue().used_idx().unwrap();
        front_end.attach_queue(load.blk.queue(), base).unwrap();
        let left = left_over(&disk);
        let asked = Instant::now();
        let base = front_end.stop_queue(0).unwrap();
        let waited = asked.elapsed();
        assert!(waited < Duration::from_secs(4), "{waited:?} for {left}");
        limit(&disk, &[]);
        front_end.attach_queue(load.blk.queue(), base).unwrap();
        while !load.in_flight.is_empty() {
            load.reap(SOON);
        }
        if left >= 8 {
            return;
        }
    }
    panic!("no process left enough");
}

#[test]
fn a_disk_has_one_state_file() {
    let disk = disk("blk-state-lock");
    let image = disk.scratch.image("other.img", 1 << 20).unwrap();
    let mut second = Daemon::builder(PROGRAM)
        .args(["--queues", "4", "--name", "disk.img", "--socket-path"])
        .arg(disk.scratch.join("other.sock"))
        .arg("--blk-file")
        .arg(image)
        .arg("--state-dir")
        .arg(disk.scratch.path())
        .spawn()
        .unwrap();
    let exit = second.wait_exit(SOON).unwrap();
    assert!(!exit.status.success());
    assert!(
        exit.stderr.contains("is in use by another process"),
        "{}",
        exit.stderr
    );
}

#[test]
fn a_qemu_guest_sees_a_pause_and_no_error() {
    let mut disk = disk("blk-crash-qemu");
    let script = r#"
set -e
n=0
echo ready
while [ ! -e /tmp/stop ]; do
    n=$((n + 1))
    dd if=/dev/urandom of=/tmp/block bs=64k count=4 2>/dev/null
    at=$((n % 50 * 4))
    dd if=/tmp/block of=/dev/vda bs=64k seek=$at oflag=direct 2>/tmp/err || { cat /tmp/err; dmesg | tail; exit 1; }
    dd if=/dev/vda of=/tmp/back bs=64k skip=$at count=4 iflag=direct 2>/tmp/err || { cat /tmp/err; exit 2; }
    cmp /tmp/block /tmp/back || exit 3
    if read -t 0 line; then break; fi
done
echo "rounds $n"
dmesg | grep -i 'i/o error' && exit 4
exit 0
"#;
    let guest = QemuGuest::new(script)
        .blk(VhostUser::new(&disk.socket).reconnect())
        .limit(Duration::from_secs(340));
    let mut guest = guest.start().unwrap();
    guest.wait_output("ready").unwrap();
    for round in 0..ROUNDS {
        std::thread::sleep(Duration::from_millis(150 + round * 53 % 300));
        disk.daemon.kill().unwrap();
        disk.daemon = start(&disk);
        // QEMU 7.2 never connects again when a daemon ends in the middle of what it says first.
        ctl_until(&disk, &["stats"], |told| {
            !told.contains(r#""operations":{"read":0,"write":0,"#)
        });
    }
    guest.write(b"stop\n").unwrap();
    let outcome = guest.wait().unwrap();
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.output, outcome.console);
    assert!(outcome.output.contains("rounds"), "{}", outcome.output);
}

#[test]
fn a_state_file_that_is_cut_short_costs_the_recovery_and_no_request() {
    let mut disk = disk("blk-state-cut");
    let (_front_end, mut blk) = disk.driver(ALL);
    assert_eq!(blk.write(0, &[1; 4096]).unwrap(), status::OK);
    let file = std::fs::File::options()
        .write(true)
        .open(disk.scratch.join("disk.img.in-flight"));
    file.unwrap().set_len(0).unwrap();
    for n in 0..100 {
        assert_eq!(blk.write(n * 8, &[2; 4096]).unwrap(), status::OK);
    }
    assert_eq!(blk.read(0, 4096).unwrap(), (status::OK, vec![2; 4096]));
    assert!(disk.daemon.is_running());
    let log = disk.daemon.stderr();
    let told = log.matches("the state file was cut short").count();
    assert_eq!(told, 1, "{log}");
}

/// Words of the state file (`vhost_daemon::queue::InFlightFile`): the header with the boot's two, then queue 0
/// with its ring's size, then a word for each head.
const BOOT: u64 = 3;
const RING_SIZE: u64 = 8 + 3;
const HEADS: u64 = 8 + 8;
const TAKEN: u64 = 1 << 2 | 1;

fn state_file(disk: &Disk) -> File {
    let path = disk.scratch.join("disk.img.in-flight");
    File::options().read(true).write(true).open(path).unwrap()
}

fn word(file: &File, at: u64) -> u64 {
    let mut word = [0; 8];
    file.read_exact_at(&mut word, at * 8).unwrap();
    u64::from_le_bytes(word)
}

/// Kills the daemon once it knows the ring, and changes words of the state file.
fn kill_and_falsify(disk: &mut Disk, words: &[(u64, u64)]) {
    let file = state_file(disk);
    let deadline = Instant::now() + SOON;
    while word(&file, RING_SIZE) != 128 {
        assert!(Instant::now() < deadline, "not the file's layout");
        std::thread::sleep(Duration::from_millis(1));
    }
    disk.daemon.kill().unwrap();
    for (word, value) in words {
        file.write_all_at(&value.to_le_bytes(), word * 8).unwrap();
    }
}

/// Requests that are there before the daemon is, written and read back.
fn served_from_the_first_on(disk: &Disk, memory: &GuestMemory, mut blk: Blk) -> Blk {
    let mut front_end = connect(disk, memory, ALL);
    let base = blk.queue().used_idx().unwrap();
    let blocks = [
        lab::pattern(1, 4096),
        lab::pattern(2, 4096),
        lab::pattern(3, 4096),
    ];
    let write = |(sector, block): (u64, &Vec<u8>)| {
        let data = Data::ToDevice(block);
        blk.stage(kind::OUT, sector * 8, data).unwrap()
    };
    let tickets: Vec<Ticket> = (0..).zip(&blocks).map(write).collect();
    blk.kick().unwrap();
    front_end.attach_queue(blk.queue(), base).unwrap();
    for ticket in tickets {
        assert_eq!(blk.wait(ticket).unwrap().0, status::OK);
    }
    for (sector, block) in (0..).zip(blocks) {
        assert_eq!(blk.read(sector * 8, 4096).unwrap(), (status::OK, block));
    }
    blk
}

/// A guest that boots puts its rings where the one before it had them, and begins at 0 as that one did.
#[test]
fn what_a_guest_that_is_gone_asked_for_is_not_done_on_the_next() {
    let mut disk = disk("blk-other-guest");
    let gone = GuestMemory::with_size(32 << 20).unwrap();
    let mut front_end = connect(&disk, &gone, ALL);
    front_end.set_up_queue(0, 128).unwrap();
    // The next guest's second request starts at the same descriptor.
    kill_and_falsify(&mut disk, &[(HEADS + 3, TAKEN)]);
    drop(front_end);
    disk.daemon = start(&disk);
    let memory = GuestMemory::with_size(32 << 20).unwrap();
    let queue = connect(&disk, &memory, ALL).lay_out_queue(0, 128).unwrap();
    let blk = served_from_the_first_on(&disk, &memory, Blk::new(queue));
    // The host has booted again since.
    let other_boot = [(BOOT, 1), (BOOT + 1, 1)];
    kill_and_falsify(
        &mut disk,
        &[&other_boot[..], &[(HEADS + 100, TAKEN)]].concat(),
    );
    disk.daemon = start(&disk);
    served_from_the_first_on(&disk, &memory, blk);
}

/// Its driver is told that a write is durable when it is answered, and flushes no more: a front end repeats
/// features and rings, and not what the driver wrote to the configuration.
#[test]
fn a_write_cache_that_was_switched_off_stays_off_over_connections_and_deaths() {
    const WRITEBACK: u32 = 32;
    let mut disk = disk("blk-write-cache");
    let memory = GuestMemory::with_size(32 << 20).unwrap();
    let mut front_end = connect(&disk, &memory, ALL);
    let mut blk = Blk::new(front_end.set_up_queue(1, 128).unwrap());
    front_end.set_config(WRITEBACK, &[0]).unwrap();
    for dies in [true, false, true] {
        assert_eq!(blk.write(0, &[1; 4096]).unwrap(), status::OK);
        if dies {
            disk.daemon.kill().unwrap();
            disk.daemon = start(&disk);
        }
        drop(front_end);
        front_end = connect(&disk, &memory, ALL);
        let base = blk.queue().used_idx().unwrap();
        front_end.attach_queue(blk.queue(), base).unwrap();
        assert_eq!(blk.read(0, 4096).unwrap().0, status::OK);
        assert_eq!(front_end.get_config(WRITEBACK, 1).unwrap(), [0]);
    }
    drop((front_end, blk));
    let memory = GuestMemory::with_size(32 << 20).unwrap();
    let mut front_end = connect(&disk, &memory, ALL);
    let mut blk = Blk::new(front_end.set_up_queue(1, 128).unwrap());
    assert_eq!(blk.write(0, &[1; 4096]).unwrap(), status::OK);
    assert_eq!(front_end.get_config(WRITEBACK, 1).unwrap(), [1]);
}
