//! The end of a qcow2 disk at any moment: a stopped queue, a signal, `kill -9`, a full host.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;
mod image;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use disk::{ALL, Disk, PROGRAM, SOON};
use lab::frontend::blk::{Blk, Data, UNMAP, kind, status};
use lab::frontend::{GuestMemory, Ticket};
use lab::process::Daemon;
use lab::scratch::Scratch;

const BLOCK: usize = 16384;
const BLOCKS: u64 = 512;
const SECTORS: u64 = BLOCK as u64 / 512;
/// Every fifth version of a block is zeroes, which free its cluster.
const ZEROES: u64 = 5;

fn content(block: u64, version: u64) -> Vec<u8> {
    if version.is_multiple_of(ZEROES) {
        return vec![0; BLOCK];
    }
    lab::pattern(block << 32 | version, BLOCK)
}

fn qcow2_disk(test: &str) -> Disk {
    let scratch = Scratch::new(test).unwrap();
    let path = scratch.join("disk.qcow2");
    let image = image::create(&path, BLOCKS * BLOCK as u64, ",cluster_size=16384");
    Disk::serve(scratch, image, |daemon| daemon.args(["--format", "qcow2"]))
}

/// Starts the daemon again.
fn start(disk: &Disk, state: bool) -> Daemon {
    let mut daemon = Daemon::builder(PROGRAM)
        .args(["--format", "qcow2", "--queues", "4", "--socket-path"])
        .arg(&disk.socket)
        .arg("--blk-file")
        .arg(&disk.image);
    if state {
        daemon = daemon.arg("--state-dir").arg(disk.scratch.path());
    }
    daemon.spawn_listening(&disk.socket, SOON).unwrap()
}

/// A guest that writes blocks again and again and knows what may be in them.
struct Load {
    blk: Blk,
    in_flight: HashMap<Ticket, (u64, u64)>,
    version: u64,
}

impl Load {
    fn new(blk: Blk) -> Self {
        Self {
            blk,
            in_flight: HashMap::new(),
            version: 0,
        }
    }

    /// Stages writes to blocks of a queue's own until `count` are in flight.
    fn submit(&mut self, count: usize, own: impl Fn(u64) -> bool) {
        for n in 0..BLOCKS {
            let block = (n * 37 + self.version * 11) % BLOCKS;
            if self.in_flight.len() >= count {
                break;
            }
            if !own(block) || self.in_flight.values().any(|(busy, _)| *busy == block) {
                continue;
            }
            self.version += 1;
            let ticket = self.stage(block, self.version);
            self.in_flight.insert(ticket, (block, self.version));
        }
        self.blk.kick().unwrap();
    }

    fn stage(&mut self, block: u64, version: u64) -> Ticket {
        let sector = block * SECTORS;
        if !version.is_multiple_of(ZEROES) {
            let bytes = content(block, version);
            return self
                .blk
                .stage(kind::OUT, sector, Data::ToDevice(&bytes))
                .unwrap();
        }
        let words = [sector as u32, 0, SECTORS as u32, UNMAP];
        let range = words.map(u32::to_le_bytes).concat();
        self.blk
            .stage(kind::WRITE_ZEROES, 0, Data::ToDevice(&range))
            .unwrap()
    }

    /// Takes what is done; `done` hears of each block and version.
    fn reap(&mut self, mut done: impl FnMut(u64, u64)) {
        for (ticket, status, _) in self.blk.wait_any(SOON).unwrap() {
            let (block, version) = self.in_flight.remove(&ticket).unwrap();
            assert_eq!(status, status::OK, "block {block}, version {version}");
            done(block, version);
        }
    }

    fn block(&mut self, block: u64) -> Vec<u8> {
        let (status, bytes) = self.blk.read(block * SECTORS, BLOCK).unwrap();
        assert_eq!(status, status::OK);
        bytes
    }
}

#[test]
fn with_a_state_directory_no_answered_write_is_lost_over_kills() {
    let mut disk = qcow2_disk("qcow2-kill");
    disk.daemon.terminate(SOON).unwrap();
    disk.daemon = start(&disk, true);
    let memory = GuestMemory::with_size(32 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let mut load = Load::new(Blk::new(front_end.set_up_queue(0, 256).unwrap()));
    let mut newest = HashMap::new();
    for round in 0..30 {
        let until = Instant::now() + Duration::from_micros(500 + round * 997 % 20_000);
        while Instant::now() < until {
            load.submit(20, |_| true);
            load.reap(|block, version| {
                newest.insert(block, version);
            });
        }
        load.submit(20, |_| true);
        disk.daemon.kill().unwrap();
        drop(front_end);
        image::check(&disk.image, true);
        disk.daemon = start(&disk, true);
        front_end = disk.front_end(ALL, &memory);
        let base = load.blk.queue().used_idx().unwrap();
        front_end.attach_queue(load.blk.queue(), base).unwrap();
        while !load.in_flight.is_empty() {
            load.reap(|block, version| {
                newest.insert(block, version);
            });
        }
        for (block, version) in &newest {
            let same = load.block(*block) == content(*block, *version);
            assert!(same, "round {round}: block {block} lost version {version}");
        }
    }
    assert!(load.version > 300, "hardly any load: {}", load.version);
}

#[test]
fn without_one_what_was_flushed_is_there_after_a_kill() {
    let mut disk = qcow2_disk("qcow2-kill-bare");
    let memory = GuestMemory::with_size(32 << 20).unwrap();
    let mut flushed: HashMap<u64, u64> = HashMap::new();
    let mut version = 0;
    for round in 0..20 {
        let mut front_end = disk.front_end(ALL, &memory);
        let mut load = Load::new(Blk::new(front_end.set_up_queue(0, 256).unwrap()));
        load.version = version;
        for (block, version) in &flushed {
            let same = load.block(*block) == content(*block, *version);
            assert!(same, "round {round}: block {block} lost version {version}");
        }
        for _ in 0..8 {
            load.submit(30, |_| true);
            load.reap(|block, version| {
                flushed.insert(block, version);
            });
        }
        while !load.in_flight.is_empty() {
            load.reap(|block, version| {
                flushed.insert(block, version);
            });
        }
        assert_eq!(load.blk.flush().unwrap(), status::OK);
        // From here on nothing is promised; these blocks may hold either version.
        for _ in 0..round % 4 {
            load.submit(30, |_| true);
            load.reap(|block, _| {
                flushed.remove(&block);
            });
        }
        load.submit(30, |_| true);
        for (block, _) in load.in_flight.values() {
            flushed.remove(block);
        }
        std::thread::sleep(Duration::from_micros(round * 331 % 3000));
        version = load.version;
        disk.daemon.kill().unwrap();
        image::check(&disk.image, true);
        disk.daemon = start(&disk, false);
    }
}

#[test]
fn a_queue_stops_while_another_holds_the_same_tables() {
    let disk = qcow2_disk("qcow2-stop");
    for round in 0..20_u64 {
        let memory = GuestMemory::with_size(32 << 20).unwrap();
        let mut front_end = disk.front_end(ALL, &memory);
        let mut loads: Vec<Load> = (0..2)
            .map(|queue| Load::new(Blk::new(front_end.set_up_queue(queue, 256).unwrap())))
            .collect();
        for (queue, load) in loads.iter_mut().enumerate() {
            load.version = round * 100;
            load.submit(40, |block| block % 2 == queue as u64);
        }
        std::thread::sleep(Duration::from_micros(round * 150));
        let base = front_end.stop_queue(0).unwrap();
        let used = loads[0].blk.queue().used_idx().unwrap();
        assert_eq!(base, used, "taken and not completed");
        while !loads[1].in_flight.is_empty() {
            loads[1].reap(|_, _| {});
        }
        front_end.attach_queue(loads[0].blk.queue(), base).unwrap();
        while !loads[0].in_flight.is_empty() {
            loads[0].reap(|_, _| {});
        }
    }
}

#[test]
fn a_signal_or_a_disconnect_under_load_leaves_a_clean_image() {
    let mut disk = qcow2_disk("qcow2-term");
    for round in 0..10_u64 {
        let memory = GuestMemory::with_size(32 << 20).unwrap();
        let mut front_end = disk.front_end(ALL, &memory);
        let mut load = Load::new(Blk::new(front_end.set_up_queue(0, 256).unwrap()));
        load.version = round * 100;
        load.submit(20, |_| true);
        load.reap(|_, _| {});
        load.submit(50, |_| true);
        std::thread::sleep(Duration::from_micros(round * 400));
        if round % 2 == 0 {
            disk.daemon.terminate(SOON).unwrap();
            image::check(&disk.image, false);
        } else {
            drop(front_end);
            let ended = Instant::now() + SOON;
            while !disk.daemon.stderr().contains("front end disconnected") {
                assert!(Instant::now() < ended, "{}", disk.daemon.stderr());
                std::thread::sleep(Duration::from_millis(1));
            }
            // Nothing is left that only the process knows.
            disk.daemon.kill().unwrap();
            image::check(&disk.image, false);
        }
        disk.daemon = start(&disk, false);
    }
}
