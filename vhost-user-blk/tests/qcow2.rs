//! qcow2 images under random traffic from several queues: what the guest wrote is what it reads and
//! what qemu-img finds, and the image is without fault.
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
use std::path::{Path, PathBuf};

use disk::{ALL, Disk, SOON};
use lab::Random;
use lab::frontend::blk::{Blk, Data, Range, UNMAP, kind, status};
use lab::frontend::{FrontEnd, GuestMemory, Ticket};
use lab::scratch::Scratch;

const BYTES: u64 = 24 << 20;
const QUEUES: u64 = 4;
const SECTOR: u64 = 512;
/// Sectors of this size belong to the queues in turn, so that they meet in every cluster.
const STRIPE: u64 = 8;
/// Behind the stripes each queue has a region for itself, where its requests are large.
const STRIPED: u64 = BYTES / 2 / SECTOR;
const REGION: u64 = STRIPED / QUEUES;
const IN_FLIGHT: usize = 12;

/// What a request in flight will have done.
enum Effect {
    Wrote(Vec<u8>),
    Zeroed,
    Discarded,
    Reads,
    Flushed,
}

struct Pending {
    sector: u64,
    sectors: u64,
    effect: Effect,
}

/// One queue with its requests in flight, none of which overlap.
struct Queue {
    number: u64,
    blk: Blk,
    pending: HashMap<Ticket, Pending>,
    random: Random,
}

/// The disk as it should be.
struct Model(Vec<u8>);

impl Model {
    fn part(&mut self, sector: u64, sectors: u64) -> &mut [u8] {
        let at = (sector * SECTOR) as usize;
        &mut self.0[at..at + (sectors * SECTOR) as usize]
    }
}

impl Queue {
    /// Sectors of this queue that no request is using.
    fn pick(&mut self) -> (u64, u64) {
        loop {
            let (sector, sectors) = if self.random.below(2) == 0 {
                let stripe = self.random.below(STRIPED / STRIPE / QUEUES) * QUEUES + self.number;
                let skip = self.random.below(STRIPE);
                let sectors = 1 + self.random.below(STRIPE - skip);
                (stripe * STRIPE + skip, sectors)
            } else {
                let skip = self.random.below(REGION - 600);
                let sectors = [9, 100, 127, 128, 129, 256, 511, 600][self.random.below(8) as usize];
                (STRIPED + self.number * REGION + skip, sectors)
            };
            let overlaps = |other: &Pending| {
                other.sector < sector + sectors && sector < other.sector + other.sectors
            };
            if !self.pending.values().any(overlaps) {
                return (sector, sectors);
            }
        }
    }

    fn submit(&mut self) {
        let (sector, sectors) = self.pick();
        let range = |flags| {
            let words = [sector as u32, (sector >> 32) as u32, sectors as u32, flags];
            words.map(u32::to_le_bytes).concat()
        };
        let len = (sectors * SECTOR) as usize;
        let (kind, at, bytes, effect) = match self.random.below(16) {
            0..7 => {
                let bytes = lab::pattern(self.random.number(), len);
                (kind::OUT, sector, bytes.clone(), Effect::Wrote(bytes))
            }
            7..12 => (kind::IN, sector, Vec::new(), Effect::Reads),
            12 => (kind::WRITE_ZEROES, 0, range(0), Effect::Zeroed),
            13 => (kind::WRITE_ZEROES, 0, range(UNMAP), Effect::Zeroed),
            14 => (kind::DISCARD, 0, range(0), Effect::Discarded),
            _ => (kind::FLUSH, 0, Vec::new(), Effect::Flushed),
        };
        let data = match kind {
            kind::IN => Data::FromDevice(len),
            kind::FLUSH => Data::None,
            _ => Data::ToDevice(&bytes),
        };
        let ticket = self.blk.stage(kind, at, data).unwrap();
        let pending = Pending {
            sector,
            sectors,
            effect,
        };
        self.pending.insert(ticket, pending);
    }

    /// Takes what is done into the model.
    fn reap(&mut self, model: &mut Model) {
        for (ticket, status, data) in self.blk.wait_any(SOON).unwrap() {
            let Pending {
                sector,
                sectors,
                effect,
            } = self.pending.remove(&ticket).unwrap();
            assert_eq!(status, status::OK, "{sectors} sectors at {sector}");
            let part = model.part(sector, sectors);
            match effect {
                Effect::Wrote(bytes) => part.copy_from_slice(&bytes),
                Effect::Zeroed => part.fill(0),
                Effect::Reads => assert!(data == part, "{sectors} sectors at {sector}"),
                Effect::Discarded => self.adopt(sector, sectors, model),
                Effect::Flushed => {}
            }
        }
    }

    /// A discarded sector is as it was, or zeroes: what it reads as holds from now on.
    fn adopt(&mut self, sector: u64, sectors: u64, model: &mut Model) {
        let len = (sectors * SECTOR) as usize;
        let ticket = self.blk.submit(kind::IN, sector, Data::FromDevice(len));
        let (status, now) = self.blk.wait(ticket.unwrap()).unwrap();
        assert_eq!(status, status::OK);
        let part = model.part(sector, sectors);
        for (old, new) in part.chunks_mut(512).zip(now.chunks(512)) {
            assert!(new == old || new == [0; 512], "a discard in {sector}..");
            old.copy_from_slice(new);
        }
    }
}

fn queues(disk: &Disk, memory: &GuestMemory, seed: u64) -> (FrontEnd, Vec<Queue>) {
    let mut front_end = disk.front_end(ALL, memory);
    let queues = (0..QUEUES).map(|number| Queue {
        number,
        blk: Blk::new(front_end.set_up_queue(number as usize, 64).unwrap()),
        pending: HashMap::new(),
        random: Random::new(seed * QUEUES + number),
    });
    let queues = queues.collect();
    (front_end, queues)
}

/// Fails unless the disk reads as `content`.
fn assert_holds(blk: &mut Blk, content: &[u8]) {
    const PART: usize = 1 << 16;
    for (number, part) in content.chunks(PART).enumerate() {
        let sector = (number * PART) as u64 / SECTOR;
        let (status, read) = blk.read(sector, part.len()).unwrap();
        assert!(status == status::OK && read == part, "at sector {sector}");
    }
}

/// Random requests on the disk, which holds `content`; afterwards the image is judged.
fn survives_traffic(scratch: Scratch, image: PathBuf, content: Vec<u8>, options: &[&str]) -> Disk {
    let arguments = [&["--format", "qcow2"], options].concat();
    let mut disk = Disk::serve(scratch, image, |daemon| daemon.args(arguments));
    let mut model = Model(content);
    for round in 0..2 {
        let memory = GuestMemory::with_size(64 << 20).unwrap();
        let (front_end, mut queues) = queues(&disk, &memory, round + 7);
        for _ in 0..60 {
            for queue in &mut queues {
                while queue.pending.len() < IN_FLIGHT {
                    queue.submit();
                }
                queue.blk.kick().unwrap();
            }
            for queue in &mut queues {
                queue.reap(&mut model);
            }
        }
        for queue in &mut queues {
            while !queue.pending.is_empty() {
                queue.reap(&mut model);
            }
        }
        assert_holds(&mut queues[0].blk, &model.0);
        drop(front_end);
    }
    disk.daemon.terminate(SOON).unwrap();
    image::check(&disk.image, false);
    image::compare(&disk.image, &model.0);
    disk
}

/// A raw file with holes, bytes that compress and bytes that do not.
fn base(scratch: &Scratch, bytes: u64) -> (PathBuf, Vec<u8>) {
    let mut content = vec![0; bytes as usize];
    for (number, part) in content.chunks_mut(70_000).enumerate() {
        match number % 3 {
            0 => part.copy_from_slice(&lab::pattern(number as u64, part.len())),
            1 => part.fill(number as u8),
            _ => {}
        }
    }
    (scratch.file("base.raw", &content).unwrap(), content)
}

fn empty() -> Vec<u8> {
    vec![0; BYTES as usize]
}

fn path(scratch: &Scratch) -> PathBuf {
    scratch.join("disk.qcow2")
}

#[test]
fn an_empty_image() {
    let scratch = Scratch::new("qcow2-empty").unwrap();
    let image = image::create(&path(&scratch), BYTES, "");
    survives_traffic(scratch, image, empty(), &[]);
}

#[test]
fn an_image_with_small_clusters_and_narrow_reference_counts() {
    let scratch = Scratch::new("qcow2-small").unwrap();
    let options = ",cluster_size=4096,refcount_bits=1";
    let image = image::create(&path(&scratch), BYTES, options);
    survives_traffic(scratch, image, empty(), &[]);
}

#[test]
fn an_image_around_the_page_cache() {
    let scratch = Scratch::new("qcow2-direct").unwrap();
    let image = image::create(&path(&scratch), BYTES, ",cluster_size=65536");
    survives_traffic(
        scratch,
        image,
        empty(),
        &["--direct", "--block-size", "512"],
    );
}

#[test]
fn an_image_on_a_raw_file_that_ends_early() {
    let scratch = Scratch::new("qcow2-raw").unwrap();
    let (base, mut content) = base(&scratch, BYTES * 2 / 3 + 777);
    let image = image::create_on(&path(&scratch), &base, "raw", "");
    image::run([
        "resize".as_ref(),
        "-fqcow2".as_ref(),
        image.as_os_str(),
        BYTES.to_string().as_ref(),
    ]);
    content.resize(BYTES as usize, 0);
    survives_traffic(scratch, image, content, &[]);
}

#[test]
fn an_image_on_a_compressed_one_on_another() {
    let scratch = Scratch::new("qcow2-chain").unwrap();
    let (base, content) = base(&scratch, BYTES);
    let packed = image::convert(&base, &scratch.join("packed.qcow2"), &["-c"]);
    let middle = image::create_on(&scratch.join("middle.qcow2"), &packed, "qcow2", "");
    let image = image::create_on(&path(&scratch), &middle, "qcow2", ",cluster_size=32768");
    survives_traffic(scratch, image, content, &[]);
}

#[test]
fn a_compressed_image() {
    let scratch = Scratch::new("qcow2-packed").unwrap();
    let (base, content) = base(&scratch, BYTES);
    let image = image::convert(&base, &path(&scratch), &["-c"]);
    survives_traffic(scratch, image, content, &["--discard", "on"]);
}

#[test]
fn an_image_with_a_snapshot_keeps_it() {
    let scratch = Scratch::new("qcow2-snapshot").unwrap();
    let (base, content) = base(&scratch, BYTES);
    let image = image::convert(&base, &path(&scratch), &[]);
    image::run(["snapshot".as_ref(), "-cbefore".as_ref(), image.as_os_str()]);
    let (kept, before) = (scratch.join("kept.qcow2"), content.clone());
    let disk = survives_traffic(scratch, image, content, &[]);
    std::fs::copy(&disk.image, &kept).unwrap();
    image::run(["snapshot".as_ref(), "-abefore".as_ref(), kept.as_os_str()]);
    image::compare(&kept, &before);
}

#[test]
fn an_image_in_memory_with_the_smallest_clusters() {
    let scratch = Scratch::in_memory("qcow2-tmpfs").unwrap();
    let image = image::create(&path(&scratch), BYTES, ",cluster_size=512");
    survives_traffic(scratch, image, empty(), &[]);
}

#[test]
fn an_image_that_outlives_its_process() {
    let scratch = Scratch::new("qcow2-state").unwrap();
    let image = image::create(&path(&scratch), BYTES, "");
    let directory = scratch.dir("state").unwrap();
    let directory = directory.to_str().unwrap().to_owned();
    survives_traffic(scratch, image, empty(), &["--state-dir", &directory]);
}

#[test]
fn version_2_is_served_without_zeroes_and_discard() {
    let scratch = Scratch::new("qcow2-v2").unwrap();
    let image = image::create(&path(&scratch), BYTES, ",compat=0.10");
    let mut disk = Disk::serve(scratch, image, |daemon| daemon.args(["--format", "qcow2"]));
    let (front_end, mut blk) = disk.driver(ALL);
    let offered = front_end.negotiated().unwrap().offered;
    assert_eq!(offered & (1 << 13 | 1 << 14), 0, "DISCARD, WRITE_ZEROES");
    let bytes = lab::pattern(5, 200_000 / 512 * 512);
    assert_eq!(blk.write(333, &bytes).unwrap(), status::OK);
    drop((blk, front_end));
    disk.daemon.terminate(SOON).unwrap();
    image::check(&disk.image, false);
    let mut expected = empty();
    expected[333 * 512..][..bytes.len()].copy_from_slice(&bytes);
    image::compare(&disk.image, &expected);
}

fn allocated(image: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(image).unwrap().blocks() * 512
}

#[test]
fn a_discard_gives_space_back_to_the_host() {
    let scratch = Scratch::new("qcow2-space").unwrap();
    let image = image::create(&path(&scratch), BYTES, "");
    let mut disk = Disk::serve(scratch, image, |daemon| daemon.args(["--format", "qcow2"]));
    let (front_end, mut blk) = disk.driver(ALL);
    let bytes = lab::pattern(1, 8 << 20);
    assert_eq!(blk.write(0, &bytes).unwrap(), status::OK);
    assert_eq!(blk.flush().unwrap(), status::OK);
    let full = allocated(&disk.image);
    assert!(full >= 8 << 20, "{full}");
    let most = [Range {
        sector: 0,
        sectors: (7 << 20) / 512,
        flags: 0,
    }];
    assert_eq!(blk.discard(&most).unwrap(), status::OK);
    assert_eq!(blk.flush().unwrap(), status::OK);
    let left = allocated(&disk.image);
    assert!(left < 2 << 20, "{left} of {full} bytes left");
    // The clusters are free for other data.
    assert_eq!(blk.write(32768, &bytes[..4 << 20]).unwrap(), status::OK);
    let length = std::fs::metadata(&disk.image).unwrap().len();
    assert!(length < 9 << 20, "grew to {length}");
    drop((blk, front_end));
    disk.daemon.terminate(SOON).unwrap();
    image::check(&disk.image, false);
}

#[test]
fn without_a_write_cache_an_answered_write_is_in_the_file() {
    const FLUSH: u64 = 1 << 9;
    let scratch = Scratch::new("qcow2-through").unwrap();
    let image = image::create(&path(&scratch), BYTES, "");
    let mut disk = Disk::serve(scratch, image, |daemon| daemon.args(["--format", "qcow2"]));
    let (_front_end, mut blk) = disk.driver(ALL & !FLUSH);
    let bytes = lab::pattern(9, 65536);
    assert_eq!(blk.write(1000, &bytes).unwrap(), status::OK);
    disk.daemon.kill().unwrap();
    image::check(&disk.image, true);
    let mut expected = empty();
    expected[1000 * 512..][..bytes.len()].copy_from_slice(&bytes);
    image::compare(&disk.image, &expected);
}

#[test]
fn a_read_only_image_stays_as_it_is() {
    let scratch = Scratch::new("qcow2-ro").unwrap();
    let (base, content) = base(&scratch, BYTES);
    let image = image::convert(&base, &path(&scratch), &[]);
    let before = std::fs::read(&image).unwrap();
    let options = ["--format", "qcow2", "--read-only"];
    let mut disk = Disk::serve(scratch, image, |daemon| daemon.args(options));
    let (front_end, mut blk) = disk.driver(ALL);
    assert_eq!(blk.write(0, &[1; 512]).unwrap(), status::IOERR);
    assert_holds(&mut blk, &content);
    assert_eq!(blk.flush().unwrap(), status::OK);
    drop((blk, front_end));
    disk.daemon.terminate(SOON).unwrap();
    assert!(std::fs::read(&disk.image).unwrap() == before);
}
