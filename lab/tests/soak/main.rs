//! Mixed load on the three daemons for as long as SOAK_SECONDS says (`make soak`: an hour), with kills at random:
//! no error, no byte that is not what was written, nothing that grows. SOAK_SEED repeats a run's choices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;
mod many;
mod network;
mod share;
mod subject;

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lab::inside::Process;
use subject::{Report, Subject};

/// Enough for some kills of each daemon on a busy machine; `make soak` says more.
const SHORT: u64 = 60;

/// One front end comes, works, and goes; the daemon may die meanwhile.
trait Load {
    fn round(&mut self, subject: &mut Subject);
}

/// A daemon, and what works on it.
type Loaded = (Subject, Box<dyn Load>);

/// Works on one daemon that is never killed, which must not grow, and on one that is.
fn soak(mut loads: [Loaded; 2], until: Instant) -> Vec<Report> {
    let mut round = 0;
    while round <= subject::WARM + 1 || Instant::now() < until {
        for (subject, load) in &mut loads {
            subject.round = round;
            load.round(subject);
            subject.measure();
        }
        round += 1;
    }
    loads.map(|(subject, _)| subject.end()).into()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// The program that uses a mounted share, as a process of its own: one that hangs there keeps nothing open here.
#[test]
#[ignore = "the other test runs it"]
fn work() {
    share::work();
}

#[test]
fn nothing_is_lost_and_nothing_grows() {
    lab::need::root().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("SOAK_SEED", now.as_secs());
    let until = Instant::now() + Duration::from_secs(number("SOAK_SECONDS", SHORT));
    println!("SOAK_SEED={seed}");
    let kinds: [fn(u64, Instant) -> Vec<Report>; 3] = [disk::soak, share::soak, network::soak];
    let running = kinds.map(|kind| {
        thread::spawn(move || {
            // Its mounts are its own.
            lab::mounts::make_private().unwrap();
            kind(seed, until)
        })
    });
    let ended = running.map(thread::JoinHandle::join);
    println!("{}", Report::HEAD);
    let mut failed = false;
    for reports in ended {
        match reports {
            Ok(reports) => reports.iter().for_each(|report| println!("{report}")),
            Err(_) => failed = true,
        }
    }
    assert!(!failed, "with SOAK_SEED={seed}");
}

/// How far the clocks of one process after another are ahead of the host's: also of the last one's, and behind.
const AHEAD: [u32; 3] = [1000 * DAY, DAY, 3000 * DAY];
const DAY: u32 = 86400;

/// Each further process is in a time namespace of its own, where the last one's times mean nothing.
#[test]
fn daemons_whose_clocks_jump_between_namespaces_serve_as_ever() {
    lab::need::root().unwrap();
    let own = Process::of(std::process::id()).namespace("time");
    let kinds: [fn(&'static str, bool, u64) -> Loaded; 3] =
        [disk::begin, share::begin, network::begin];
    let running = kinds.map(|begin| {
        let own = own.clone();
        thread::spawn(move || {
            // Its mounts are its own.
            lab::mounts::make_private().unwrap();
            let (mut subject, mut load) = begin("elsewhere", true, 1);
            for (round, ahead) in (0..).zip(AHEAD) {
                subject.round = round;
                subject.clocks_ahead = ahead;
                load.round(&mut subject);
                assert_ne!(subject.process().namespace("time"), own);
            }
            subject.stop();
        })
    });
    let ended = running.map(thread::JoinHandle::join);
    assert!(ended.iter().all(Result::is_ok), "see above");
}
