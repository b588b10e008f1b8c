//! Images on a tmpfs: read and written through a mapping where that is right, and whole in any case.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use disk::{ALL, Disk, SOON};
use lab::Random;
use lab::frontend::blk::{Blk, Data, Range, UNMAP, kind, status};
use lab::frontend::{FrontEnd, GuestMemory};
use lab::scratch::Scratch;

const MIB: u64 = 1 << 20;

/// A tmpfs of `mib` MiB in `scratch`, which unmounts it.
fn tmpfs(scratch: &Scratch, mib: u64) -> PathBuf {
    lab::need::root().unwrap();
    let at = scratch.dir("tmpfs").unwrap();
    let done = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
        .arg(&at)
        .status()
        .unwrap();
    assert!(done.success(), "mount failed");
    at
}

fn blocks(image: &Path) -> u64 {
    std::fs::metadata(image).unwrap().blocks()
}

fn open(image: &Path) -> File {
    File::options().read(true).write(true).open(image).unwrap()
}

/// How many 4 KiB pages of the image the daemon has in its page tables: what it touched through a
/// mapping.
fn mapped_pages(disk: &Disk) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", disk.daemon.pid())).unwrap();
    let name = disk.image.to_str().unwrap();
    let mut of_image = false;
    let mut pages = 0;
    for line in smaps.lines() {
        if line.contains('-') && line.as_bytes()[0].is_ascii_hexdigit() {
            of_image = line.ends_with(name);
        } else if let (true, Some(rest)) = (of_image, line.strip_prefix("Rss:")) {
            pages += rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 4;
        }
    }
    pages
}

/// Waits until a read of `sector` goes through the mapping: the image's extents are being listed.
fn wait_mapped(disk: &Disk, blk: &mut Blk, sector: u64) {
    let deadline = Instant::now() + SOON;
    while mapped_pages(disk) == 0 {
        assert_eq!(blk.read(sector, 512).unwrap().0, status::OK);
        assert!(Instant::now() < deadline, "the image is never mapped");
    }
}

#[test]
fn what_is_there_is_mapped_and_a_sparse_image_stays_sparse() {
    let test = "blk-sparse";
    let disk = Disk::start_in_memory_filled(test, 32 * MIB, |image| {
        image
            .write_all_at(&lab::pattern(1, 2 << 20), 4 * MIB)
            .unwrap();
        image
            .write_all_at(&lab::pattern(2, 4096), 9 * MIB + 4096)
            .unwrap();
    });
    let before = blocks(&disk.image);
    let (_front_end, mut blk) = disk.driver(ALL);
    wait_mapped(&disk, &mut blk, 8192);
    for n in 0..32 {
        let (status, data) = blk.read(n * 2048, 1 << 20).unwrap();
        let expected = match n {
            4 | 5 => lab::pattern(1, 2 << 20)[(n as usize - 4) << 20..][..1 << 20].to_vec(),
            9 => [
                vec![0; 4096],
                lab::pattern(2, 4096),
                vec![0; (1 << 20) - 8192],
            ]
            .concat(),
            _ => vec![0; 1 << 20],
        };
        assert!((status, &data) == (status::OK, &expected), "MiB {n}");
    }
    assert_eq!(blocks(&disk.image), before, "reading filled holes");
    let pages = mapped_pages(&disk);
    assert!(
        (256..=513).contains(&pages),
        "{pages} pages are mapped of 513"
    );

    // Filled by us: mapped from the second time on, and nothing else with it.
    assert_eq!(blk.write(40960, &[3; 4096]).unwrap(), status::OK);
    assert_eq!(blocks(&disk.image), before + 8);
    assert_eq!(blk.write(40960, &[4; 4096]).unwrap(), status::OK);
    assert_eq!(blk.read(40960, 4096).unwrap(), (status::OK, vec![4; 4096]));
    assert_eq!(mapped_pages(&disk), pages + 1);

    // Given back: gone, and reading brings nothing back.
    let all = [Range {
        sector: 8192,
        sectors: 4096,
        flags: 0,
    }];
    assert_eq!(blk.discard(&all).unwrap(), status::OK);
    let zeroed = [Range {
        sector: 40960,
        sectors: 8,
        flags: UNMAP,
    }];
    assert_eq!(blk.write_zeroes(&zeroed).unwrap(), status::OK);
    assert_eq!(blocks(&disk.image), 8);
    assert_eq!(
        blk.read(8192, 1 << 20).unwrap(),
        (status::OK, vec![0; 1 << 20])
    );
    assert_eq!(blk.read(40960, 4096).unwrap(), (status::OK, vec![0; 4096]));
    assert_eq!(blocks(&disk.image), 8, "reading filled holes");
}

/// One queue's traffic against a model of its part of the disk, which no other queue touches; its borders
/// lie inside pages and inside units of the daemon's tables.
struct Traffic {
    blk: Blk,
    from: u64,
    model: Vec<u8>,
    random: Random,
}

impl Traffic {
    fn random(&mut self, below: u64) -> u64 {
        self.random.below(below)
    }

    fn step(&mut self) {
        let sectors = self.model.len() as u64 / 512;
        let at = self.random(sectors);
        let most = if self.random(4) == 0 { 600 } else { 20 };
        let count = (1 + self.random(most)).min(sectors - at);
        let (start, end) = ((at * 512) as usize, ((at + count) * 512) as usize);
        let range = [Range {
            sector: self.from + at,
            sectors: count as u32,
            flags: 0,
        }];
        match self.random(10) {
            0..4 => {
                let (status, data) = self.blk.read(self.from + at, end - start).unwrap();
                assert_eq!(status, status::OK);
                assert!(data == self.model[start..end], "sector {}", self.from + at);
            }
            4..8 => {
                let seed = self.random(1 << 40);
                let bytes = lab::pattern(seed, end - start);
                assert_eq!(self.blk.write(self.from + at, &bytes).unwrap(), status::OK);
                self.model[start..end].copy_from_slice(&bytes);
            }
            which => {
                let status = match which {
                    8 => self.blk.discard(&range).unwrap(),
                    _ => self.blk.write_zeroes(&range).unwrap(),
                };
                assert_eq!(status, status::OK);
                self.model[start..end].fill(0);
            }
        }
    }
}

#[test]
fn random_traffic_of_several_queues_agrees_with_a_model() {
    const QUEUES: u64 = 4;
    let part = 3 * MIB + 512 * 5;
    let disk = Disk::start_in_memory_filled("blk-model", 16 * MIB, |image| {
        image.write_all_at(&vec![0; 6 << 20], MIB).unwrap();
    });
    let memory = GuestMemory::with_size(1 << 30).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let queues: Vec<Blk> = (0..QUEUES)
        .map(|n| Blk::new(front_end.set_up_queue(n as usize, 64).unwrap()))
        .collect();
    std::thread::scope(|scope| {
        for (n, blk) in (0..QUEUES).zip(queues) {
            scope.spawn(move || {
                let mut traffic = Traffic {
                    blk,
                    from: n * part / 512,
                    model: vec![0; part as usize],
                    random: Random::new(77 + n),
                };
                (0..1500).for_each(|_| traffic.step());
                let (status, data) = traffic.blk.read(traffic.from, 1 << 20).unwrap();
                assert!((status, &data[..]) == (status::OK, &traffic.model[..1 << 20]));
            });
        }
    });
    assert!(
        mapped_pages(&disk) > 100,
        "nothing went through the mapping"
    );
}

#[test]
fn an_image_cut_short_gives_errors_behind_its_end_and_the_rest_goes_on() {
    let mut disk = Disk::start_in_memory_filled("blk-cut", 8 * MIB, |image| {
        image.write_all_at(&lab::pattern(5, 8 << 20), 0).unwrap();
    });
    let (front_end, mut blk) = disk.driver(ALL);
    wait_mapped(&disk, &mut blk, 0);
    let last = 8 * MIB / 512 - 8;
    assert_eq!(blk.read(last, 4096).unwrap().0, status::OK);
    open(&disk.image).set_len(4 * MIB).unwrap();
    assert_eq!(blk.read(last, 4096).unwrap().0, status::IOERR);
    let across = 4 * MIB / 512 - 8;
    assert_eq!(blk.read(across, 8192).unwrap().0, status::IOERR);
    let bytes = lab::pattern(5, 8 << 20);
    assert!(blk.read(0, 1 << 20).unwrap() == (status::OK, bytes[..1 << 20].to_vec()));
    assert_eq!(blk.write(across, &[9; 4096]).unwrap(), status::OK);
    assert_eq!(blk.read(across, 4096).unwrap(), (status::OK, vec![9; 4096]));
    let mut on_file = [0; 4096];
    open(&disk.image)
        .read_exact_at(&mut on_file, across * 512)
        .unwrap();
    assert_eq!(on_file, [9; 4096]);
    assert!(disk.daemon.is_running());
    let log = disk.daemon.stderr();
    assert_eq!(log.matches("the image was cut short").count(), 1, "{log}");
    drop((front_end, blk));
    disk.assert_serves();
}

#[test]
fn writes_while_the_image_is_cut_short_are_in_the_file_or_fail() {
    let disk = Disk::start_in_memory_filled("blk-cut-write", 16 * MIB, |image| {
        image.write_all_at(&vec![1; 16 << 20], 0).unwrap();
    });
    let memory = GuestMemory::with_size(64 << 20).unwrap();
    let mut front_end = disk.front_end(ALL, &memory);
    let mut queues: Vec<Blk> = (0..2)
        .map(|n| Blk::new(front_end.set_up_queue(n, 64).unwrap()))
        .collect();
    wait_mapped(&disk, &mut queues[0], 0);
    let image = open(&disk.image);
    std::thread::scope(|scope| {
        for (n, mut blk) in (0..).zip(queues) {
            // One writes at the front, which stays; the other one behind the cut.
            scope.spawn(move || {
                for round in 0..400_u64 {
                    let sector = n * 16384 + round % 64 * 8;
                    let bytes = lab::pattern(round, 4096);
                    let answer = blk.write(sector, &bytes).unwrap();
                    assert!(n == 1 || answer == status::OK, "write {round}");
                    if n == 0 {
                        assert!(blk.read(sector, 4096).unwrap() == (status::OK, bytes));
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(5));
        image.set_len(8 * MIB).unwrap();
    });
    for round in 400 - 64..400_u64 {
        let mut on_file = vec![0; 4096];
        image
            .read_exact_at(&mut on_file, round % 64 * 4096)
            .unwrap();
        assert!(
            on_file == lab::pattern(round, 4096),
            "write {round} is not in the file"
        );
    }
}

#[test]
fn a_full_tmpfs_gives_errors_and_what_is_there_goes_on() {
    let scratch = Scratch::new("blk-full-tmpfs").unwrap();
    let image = tmpfs(&scratch, 4).join("disk.img");
    let file = File::create_new(&image).unwrap();
    file.set_len(16 * MIB).unwrap();
    file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
    let mut disk = Disk::start_on("blk-full-tmpfs", image.clone());
    let (front_end, mut blk) = disk.driver(ALL);
    wait_mapped(&disk, &mut blk, 0);
    let bytes = lab::pattern(3, 1 << 20);
    let answers: Vec<u8> = (0..16)
        .map(|n| blk.write(n * 2048, &bytes).unwrap())
        .collect();
    assert_eq!(answers[..3], [status::OK; 3]);
    assert_eq!(answers[15], status::IOERR, "{answers:?}");
    assert!(disk.daemon.stderr().contains("No space left on device"));
    for n in (0..16).filter(|n| answers[*n as usize] == status::OK) {
        assert!(blk.read(n * 2048, 1 << 20).unwrap() == (status::OK, bytes.clone()));
    }
    // A page that someone else takes away: there is no room for another, and no SIGBUS either.
    let punched = Command::new("fallocate")
        .args(["-p", "-o", "0", "-l", "65536"])
        .arg(&image)
        .status()
        .unwrap();
    assert!(punched.success());
    std::fs::write(image.with_file_name("filler"), vec![0; 1 << 20]).unwrap_err();
    assert_eq!(blk.write(0, &[7; 4096]).unwrap(), status::IOERR);
    assert_eq!(
        blk.read(1024, 4096).unwrap(),
        (status::OK, bytes[512 << 10..][..4096].to_vec())
    );
    assert!(disk.daemon.is_running());
    drop((front_end, blk));
    disk.assert_serves();
    disk.daemon.terminate(SOON).unwrap();
}

/// A queue whose guest's memory was cut to nothing is stopped with one line.
fn assert_lost(disk: &mut Disk, touch: impl FnOnce(&mut FrontEnd, &mut Blk)) {
    let (mut front_end, mut blk) = disk.driver(ALL);
    assert_eq!(blk.read(0, 512).unwrap().0, status::OK, "before the loss");
    let memory = blk.queue().memory().clone();
    let before = disk
        .daemon
        .stderr()
        .matches("took memory of its guest away")
        .count();
    touch(&mut front_end, &mut blk);
    let deadline = Instant::now() + SOON;
    while disk
        .daemon
        .stderr()
        .matches("took memory of its guest away")
        .count()
        == before
    {
        assert!(
            Instant::now() < deadline,
            "no word of the loss: {}",
            disk.daemon.stderr()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    // The file grows again: what was lost stays lost until a new table comes.
    memory.set_file_len(64 << 20).unwrap();
    assert!(disk.daemon.is_running());
    front_end.stop_queue(0).unwrap();
    front_end.set_mem_table(&memory).unwrap();
    let queue = front_end.lay_out_queue(0, 64).unwrap();
    front_end.attach_queue(&queue, 0).unwrap();
    let (status, data) = Blk::new(queue).read(0, 512).unwrap();
    assert_eq!((status, data.len()), (status::OK, 512), "after a new table");
}

#[test]
fn a_front_end_that_shrinks_its_memory_loses_its_queue_and_nothing_else() {
    for in_memory in [true, false] {
        let mut disk = match in_memory {
            true => Disk::start_in_memory_filled("blk-shrunk", 8 * MIB, |image| {
                image.write_all_at(&vec![1; 8 << 20], 0).unwrap();
            }),
            false => Disk::start("blk-shrunk", 8 * MIB),
        };
        // Everything goes, then a kick.
        assert_lost(&mut disk, |_, blk| {
            let memory = blk.queue().memory().clone();
            memory.set_file_len(0).unwrap();
            blk.queue().kick_always().unwrap();
        });
        // It goes under load.
        assert_lost(&mut disk, |_, blk| {
            let memory = blk.queue().memory().clone();
            for n in 0..40 {
                let bytes = [6; 65536];
                let (kind, data) = match n % 2 {
                    0 => (kind::IN, Data::FromDevice(65536)),
                    _ => (kind::OUT, Data::ToDevice(&bytes)),
                };
                blk.stage(kind, n * 16, data).unwrap();
            }
            blk.kick().unwrap();
            memory.set_file_len(0).unwrap();
            blk.queue().kick_always().unwrap();
        });
        disk.assert_serves();
        assert!(
            !disk.daemon.stderr().contains("panicked"),
            "{}",
            disk.daemon.stderr()
        );
    }
}

#[test]
fn an_image_that_grew_is_mapped_to_its_new_end() {
    let disk = Disk::start_in_memory_filled("blk-grown", 2 * MIB + 512, |image| {
        image.write_all_at(&vec![1; 2 << 20], 0).unwrap();
    });
    let (_front_end, mut blk) = disk.driver(ALL);
    wait_mapped(&disk, &mut blk, 0);
    // The last sector lies behind what can be mapped.
    assert_eq!(blk.write(4096, &[8; 512]).unwrap(), status::OK);
    assert_eq!(blk.read(4088, 4096 + 512).unwrap().0, status::OK);
    let image = open(&disk.image);
    image.set_len(6 * MIB).unwrap();
    image
        .write_all_at(&lab::pattern(4, 2 << 20), 4 * MIB)
        .unwrap();
    let socket = disk.scratch.join("control.sock");
    let grown = Command::new(disk::PROGRAM)
        .arg("ctl")
        .arg(socket)
        .arg("resize")
        .status();
    assert!(grown.unwrap().success());
    let pages = mapped_pages(&disk);
    let expected = lab::pattern(4, 2 << 20)[..1 << 20].to_vec();
    assert!(blk.read(8192, 1 << 20).unwrap() == (status::OK, expected));
    assert!(mapped_pages(&disk) > pages, "the new part is not mapped");
    assert_eq!(blk.read(4096, 512).unwrap(), (status::OK, vec![8; 512]));
}
