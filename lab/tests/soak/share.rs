//! The host's own kernel mounts the share, and a program makes, moves, reads and removes files there.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lab::bridge::Bridge;

use super::subject::{Report, Subject};
use super::{Load, Loaded, soak as soak_both};

/// Where the program works, and the round.
const PLACE: &str = "SOAK_PLACE";
const ROUND: &str = "SOAK_ROUND";
const FILES: u64 = 40;
/// System calls on each file, about as many requests.
const CALLS: u64 = 12;
/// Longer than a request takes on a busy machine, so that each process gets something done.
const LIVES: Duration = Duration::from_millis(150);
/// A round takes about a second.
const HANGS: Duration = Duration::from_secs(120);

pub(crate) fn soak(seed: u64, until: Instant) -> Vec<Report> {
    let shares = [("share", false), ("share, killed", true)];
    soak_both(
        shares.map(|(name, mortal)| begin(name, mortal, seed)),
        until,
    )
}

pub(crate) fn begin(name: &'static str, mortal: bool, seed: u64) -> Loaded {
    let options = ["--shared-dir", "@/shared", "--state-dir", "@/state"];
    let subject = Subject::new(name, ("virtiofsd", &options), (mortal, seed), None);
    (subject, Box::new(Share))
}

struct Share;

impl Load for Share {
    fn round(&mut self, subject: &mut Subject) {
        let mount = subject.scratch.join("mount");
        let mut builder = Bridge::new(&subject.socket());
        if subject.mortal {
            builder = builder.waiting();
        }
        let mut bridge = builder.mount(&mount).unwrap();
        let mut program = program(&mount, subject.round);
        let hangs = Instant::now() + HANGS;
        let mut dies = Instant::now() + LIVES;
        let status = loop {
            if let Some(status) = program.try_wait().unwrap() {
                break status;
            }
            if Instant::now() >= hangs {
                // Who waits on the mount gets an error: nothing of it stays.
                bridge.cutter().cut();
                panic!("{subject}: the program hangs");
            }
            if subject.mortal && Instant::now() >= dies {
                subject.kill(|_| bridge.reattach().unwrap());
                dies = Instant::now() + LIVES + Duration::from_millis(subject.random(400));
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{subject}: the program failed");
        bridge.unmount().unwrap();
        let left = fs::read_dir(subject.scratch.join("shared"))
            .unwrap()
            .count();
        assert_eq!(left, 1, "{subject}: one directory stays");
        subject.requests += FILES * CALLS;
        subject.bytes += 2 * (0..FILES).map(|number| len(number) as u64).sum::<u64>();
    }
}

fn program(mount: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "work", "--ignored", "--nocapture"])
        .env(PLACE, mount)
        .env(ROUND, round.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn len(number: u64) -> usize {
    5000 * (1 + number as usize % 7)
}

/// Files are made, written, moved, written by their old descriptor, read back and removed.
pub(crate) fn work() {
    let directory = Path::new(&std::env::var(PLACE).unwrap()).join("directory");
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    fs::create_dir_all(&directory).unwrap();
    for number in 0..FILES {
        let path = directory.join(format!("{number}"));
        let moved = directory.join(format!("{number}-moved"));
        let mut bytes = lab::pattern(round << 8 | number, len(number));
        let mut file = File::create(&path).unwrap();
        file.write_all(&bytes).unwrap();
        fs::rename(&path, &moved).unwrap();
        file.write_all(b"end").unwrap();
        file.sync_data().unwrap();
        bytes.extend(b"end");
        assert!(fs::read(&moved).unwrap() == bytes, "file {number}");
        // The kernel is not to remember it.
        assert_eq!(fs::metadata(&moved).unwrap().len(), bytes.len() as u64);
        // A moment in which nothing is in flight, too.
        thread::sleep(Duration::from_millis(5));
    }
    let names = fs::read_dir(&directory).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names.len() as u64, FILES);
    for name in names {
        fs::remove_file(name).unwrap();
    }
}
