//! A daemon that stands still, and one without descriptors: a pause, and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod disk;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use disk::{ALL, Disk, SOON};
use lab::frontend::blk::{Data, kind, status};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

const MIB: u64 = 1 << 20;

#[test]
fn a_daemon_that_stands_still_for_seconds_loses_nothing() {
    let disk = Disk::start("blk-frozen", 16 * MIB);
    let (_front_end, mut blk) = disk.driver(ALL);
    for round in 0..3 {
        let mut tickets = Vec::new();
        for block in 0..24 {
            let bytes = lab::pattern(round << 8 | block, 8192);
            let data = Data::ToDevice(&bytes);
            tickets.push(blk.submit(kind::OUT, block * 16, data).unwrap());
            if block == 12 {
                disk.daemon.signal(Signal::STOP).unwrap();
            }
        }
        sleep(Duration::from_secs(2));
        disk.daemon.signal(Signal::CONT).unwrap();
        for ticket in tickets {
            assert_eq!(blk.wait(ticket).unwrap().0, status::OK);
        }
        for block in 0..24 {
            let expected = lab::pattern(round << 8 | block, 8192);
            assert_eq!(blk.read(block * 16, 8192).unwrap(), (status::OK, expected));
        }
    }
}

/// Who connects waits; who is connected is served; and nothing spins.
#[test]
fn without_descriptors_to_have_the_guest_goes_on_and_others_wait() {
    let disk = Disk::start("blk-descriptors-short", 16 * MIB);
    let (_front_end, mut blk) = disk.driver(ALL);
    assert_eq!(blk.write(0, &[7; 4096]).unwrap(), status::OK);
    let pid = Pid::from_raw(disk.daemon.serving_pid().unwrap().cast_signed());
    let whole = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(3),
        maximum: whole.maximum,
    };
    prlimit(pid, Resource::Nofile, none).unwrap();
    let mut asking = UnixStream::connect(disk.scratch.join("metrics.sock")).unwrap();
    let waiting = UnixStream::connect(&disk.socket).unwrap();
    let before = disk.daemon.cpu_ticks().unwrap();
    for sector in 0..200 {
        assert_eq!(blk.write(sector * 8, &[9; 4096]).unwrap(), status::OK);
        assert_eq!(
            blk.read(sector * 8, 4096).unwrap(),
            (status::OK, vec![9; 4096])
        );
    }
    sleep(Duration::from_secs(1));
    // In hundredths of a second; to spin would take a hundred.
    let used = disk.daemon.cpu_ticks().unwrap() - before;
    assert!(used < 70, "{used} hundredths of a second for 400 requests");
    prlimit(pid, Resource::Nofile, whole).unwrap();
    let mut text = String::new();
    asking.set_read_timeout(Some(SOON)).unwrap();
    asking.read_to_string(&mut text).unwrap();
    assert!(text.contains("requests"), "{text}");
    drop(waiting);
}
