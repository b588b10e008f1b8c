//! A power cut at any moment: what a guest had flushed is on the medium. The image lies on a file system
//! that records each write and each sync (`lab::bridge::Journal`); the record is replayed up to every flush
//! that the guest saw answered and to moments between, with some of what was not synced by then, in no order.
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
use std::path::Path;
use std::process::Command;

use disk::{ALL, Disk, SOON};
use lab::Random;
use lab::bridge::{Event, Journal};
use lab::frontend::Ticket;
use lab::frontend::blk::{Blk, Data, Range, kind, status};
use lab::medium::Medium;
use lab::scratch::Scratch;

const BLOCK: usize = 12 << 10;
const BLOCKS: u64 = 300;
const BYTES: u64 = 4 << 20;
const FLUSHES: u64 = 24;

/// What a guest knows when a flush was answered.
struct Point {
    /// How far the record was.
    recorded: usize,
    /// The versions of blocks that were written before.
    durable: HashMap<u64, u64>,
}

/// A guest that writes blocks in any order, many at a time.
struct Guest {
    blk: Blk,
    in_flight: HashMap<Ticket, (u64, u64)>,
    written: HashMap<u64, u64>,
    /// All versions that were begun, by block.
    begun: HashMap<u64, Vec<u64>>,
    version: u64,
    random: Random,
}

impl Guest {
    fn random(&mut self, below: u64) -> u64 {
        self.random.below(below)
    }

    fn write_some(&mut self) {
        for _ in 0..8 + self.random(24) {
            let block = self.random(BLOCKS);
            // A flush needs room in the ring, too.
            if self.in_flight.len() == 32 {
                break;
            }
            if self.in_flight.values().any(|(busy, _)| *busy == block) {
                continue;
            }
            self.version += 1;
            let bytes = content(block, self.version);
            let sector = block * (BLOCK as u64 / 512);
            let ticket = self.blk.stage(kind::OUT, sector, Data::ToDevice(&bytes));
            self.in_flight
                .insert(ticket.unwrap(), (block, self.version));
            self.begun.entry(block).or_default().push(self.version);
        }
        self.blk.kick().unwrap();
        self.reap();
    }

    /// Takes what is done; some stays in flight.
    fn reap(&mut self) {
        for (ticket, status, _) in self.blk.wait_any(SOON).unwrap() {
            assert_eq!(status, status::OK);
            if let Some((block, version)) = self.in_flight.remove(&ticket) {
                self.written.insert(block, version);
            }
        }
    }

    /// What is known to be written when the flush begins, and how far the record is when it is answered.
    fn flush(&mut self, journal: &Journal) -> Point {
        let durable = self.written.clone();
        let ticket = self.blk.submit(kind::FLUSH, 0, Data::None).unwrap();
        let (status, _) = self.blk.wait(ticket).unwrap();
        assert_eq!(status, status::OK);
        Point {
            recorded: journal.len(),
            durable,
        }
    }
}

fn content(block: u64, version: u64) -> Vec<u8> {
    lab::pattern(block << 32 | version, BLOCK)
}

/// The medium after a power cut behind `events`: what was synced, and some of the rest.
fn cut(initial: &[u8], events: &[Event], seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let durable = Journal::durable(events);
    let mut image = initial.to_vec();
    events[..durable].iter().for_each(|it| it.apply(&mut image));
    for event in &events[durable..] {
        if random.below(2) == 0 {
            event.apply(&mut image);
        }
    }
    image
}

/// Each sector has what was flushed, or what a later write put there.
fn assert_holds(disk: &[u8], durable: &HashMap<u64, u64>, begun: &HashMap<u64, Vec<u64>>) {
    for (&block, &version) in durable {
        let now = &disk[block as usize * BLOCK..][..BLOCK];
        if now == content(block, version) {
            continue;
        }
        let since = begun[&block].iter().filter(|it| **it >= version);
        let could_be: Vec<Vec<u8>> = since.map(|it| content(block, *it)).collect();
        for (index, sector) in now.chunks(512).enumerate() {
            let holds = could_be
                .iter()
                .any(|it| &it[index * 512..][..512] == sector);
            assert!(holds, "block {block}, version {version}, sector {index}");
        }
    }
}

fn power_is_cut(
    test: &str,
    options: &[&str],
    make: impl Fn(&Path),
    read: impl Fn(&Path) -> Vec<u8>,
) {
    let medium = Medium::new(test);
    make(&medium.shared.join("disk.img"));
    let initial = std::fs::read(medium.shared.join("disk.img")).unwrap();
    let disk = Disk::serve(
        Scratch::new(test).unwrap(),
        medium.mount.join("disk.img"),
        |daemon| daemon.args(options.iter()),
    );
    let (front_end, blk) = disk.driver(ALL);
    let mut guest = Guest {
        blk,
        in_flight: HashMap::new(),
        written: HashMap::new(),
        begun: HashMap::new(),
        version: 0,
        random: Random::new(1),
    };
    let mut points = Vec::new();
    for _ in 0..FLUSHES {
        guest.write_some();
        points.push(guest.flush(&medium.journal));
    }
    let events = medium.journal.events();
    let begun = guest.begun.clone();
    drop((guest, front_end, disk));
    let cut_image = medium.scratch.join("cut.img");
    // At the flush's answer, and somewhere before the next one's.
    let next = points[1..].iter().map(|point| point.recorded);
    let mut random = Random::new(2);
    for (point, next) in points.iter().zip(next.chain([events.len()])) {
        let seed = random.number();
        let between = point.recorded + seed as usize % (next - point.recorded + 1);
        for at in [point.recorded, between] {
            std::fs::write(&cut_image, cut(&initial, &events[..at], seed)).unwrap();
            assert_holds(&read(&cut_image), &point.durable, &begun);
        }
    }
    let writes = events.iter().filter(|it| matches!(it, Event::Write { .. }));
    assert!(writes.count() as u64 >= points.last().unwrap().durable.len() as u64);
}

#[test]
fn a_power_cut_loses_nothing_that_was_flushed() {
    let make = |image: &Path| File::create(image).unwrap().set_len(BYTES).unwrap();
    power_is_cut("power-raw", &["--format", "raw"], make, |image| {
        std::fs::read(image).unwrap()
    });
}

/// And the image is whole: tables never name what is not there. Clusters may be lost to it.
#[test]
fn a_power_cut_leaves_a_qcow2_image_whole() {
    let run = |command: &mut Command, fine: &[i32]| {
        let done = command.output().unwrap();
        let code = done.status.code().unwrap();
        assert!(fine.contains(&code), "{command:?}: {done:?}");
    };
    let make = |image: &Path| {
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-o", "cluster_size=4096"]);
        run(create.arg(image).arg(BYTES.to_string()), &[0]);
    };
    let read = |image: &Path| {
        // 3: clusters are leaked, and nothing else.
        let mut check = Command::new("qemu-img");
        run(
            check.args(["check", "-q", "-f", "qcow2"]).arg(image),
            &[0, 3],
        );
        let raw = image.with_extension("raw");
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "qcow2", "-O", "raw"]);
        run(convert.arg(image).arg(&raw), &[0]);
        std::fs::read(raw).unwrap()
    };
    power_is_cut("power-qcow2", &["--format", "qcow2"], make, read);
}

#[test]
fn zeroes_are_on_the_medium_when_they_are_answered_without_a_write_cache() {
    let test = "power-zeroes";
    let medium = Medium::new(test);
    std::fs::write(medium.shared.join("disk.img"), vec![1; BYTES as usize]).unwrap();
    let image = medium.mount.join("disk.img");
    let disk = Disk::serve(Scratch::new(test).unwrap(), image, |daemon| daemon);
    let (mut front_end, mut blk) = disk.driver(ALL);
    front_end.set_config(32, &[0]).unwrap();
    let ranges = [8, 64].map(|sector| Range {
        sector,
        sectors: 16,
        flags: 0,
    });
    assert_eq!(blk.write_zeroes(&ranges).unwrap(), status::OK);
    let events = medium.journal.events();
    let is_zero = |event: &Event| matches!(event, Event::Zero { .. });
    let last = events.iter().rposition(is_zero).unwrap();
    assert!(Journal::durable(&events) > last, "{} events", events.len());
    drop((front_end, blk, disk));
}
