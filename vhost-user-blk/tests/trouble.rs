//! A daemon that stands still, and one without descriptors or memory to have: a pause or an error for what
//! needs it, and nothing else.
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
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use disk::{ALL, Disk, PROGRAM, SOON};
use lab::frontend::blk::{Data, kind, status};
use lab::frontend::garbage::alive;
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::inside::Process;
use lab::scratch::Scratch;
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

/// Leaves a process room for so many more descriptors.
fn leave(process: &Process, more: u64) {
    let open: Vec<u64> = process
        .descriptors()
        .iter()
        .map(|(number, _)| number.parse().unwrap())
        .collect();
    let mut free = (3..).filter(|number| !open.contains(number));
    process.set_limit(Resource::Nofile, free.nth(more as usize));
}

#[test]
fn a_queue_that_descriptors_were_short_for_starts_when_there_are_some() {
    let disk = Disk::start("blk-queue-short", MIB);
    let process = Process::serving(&disk.daemon);
    let mut rested = 0;
    for more in 0..8 {
        let (mut front_end, mut blk) = disk.driver(ALL);
        front_end.enable_queue(0, false).unwrap();
        // Its thread closes what it had.
        sleep(Duration::from_millis(100));
        leave(&process, more);
        let ticket = blk.submit(kind::IN, 0, Data::FromDevice(512)).unwrap();
        front_end.enable_queue(0, true).unwrap();
        let before = disk.daemon.cpu_ticks().unwrap();
        sleep(Duration::from_millis(700));
        assert!(
            disk.daemon.cpu_ticks().unwrap() - before < 20,
            "the daemon spins"
        );
        rested += u32::from(blk.queue().pending().unwrap() == 0);
        process.unlimit(Resource::Nofile);
        assert_eq!(blk.wait(ticket).unwrap().0, status::OK, "{more} were left");
    }
    let log = disk.daemon.stderr();
    assert!(rested >= 4, "only {rested} were short: {log}");
    assert!(log.contains("queue cannot be started"), "{log}");
    assert!(log.lines().count() < 40, "{log}");
}

#[test]
fn a_front_end_that_cannot_be_served_is_gone_again() {
    let scratch = Scratch::new("blk-session-short").unwrap();
    let image = scratch.image("disk.img", MIB).unwrap();
    let control = scratch.join("control");
    let disk = Disk::serve(scratch, image, |d| d.arg("--control").arg(&control));
    let process = Process::serving(&disk.daemon);
    let is_gone = || {
        let mut ctl = Command::new(PROGRAM);
        let told = ctl.arg("ctl").arg(&control).arg("stats").output().unwrap();
        String::from_utf8_lossy(&told.stdout).contains(r#""connected":false"#)
    };
    let wait_until_gone = |more| {
        let deadline = Instant::now() + SOON;
        while !is_gone() {
            assert!(Instant::now() < deadline, "{more:?} were left");
            sleep(Duration::from_millis(20));
        }
    };
    // It closes itself in before it answers.
    wait_until_gone(None);
    for more in 0..40 {
        leave(&process, more);
        let _ = alive(&disk.socket, Duration::from_millis(300));
        process.unlimit(Resource::Nofile);
        wait_until_gone(Some(more));
    }
    let log = disk.daemon.stderr();
    assert!(log.contains("the session cannot be started"), "{log}");
    disk.assert_serves();
}

/// `--direct` and buffers that are not aligned: the daemon needs memory of its own for each request.
#[test]
fn without_memory_to_have_requests_that_need_some_fail_and_the_rest_goes_on() {
    let scratch = Scratch::new("blk-memory-short").unwrap();
    let image = scratch.image("disk.img", 16 * MIB).unwrap();
    let mut disk = Disk::serve(scratch, image, |daemon| daemon.arg("--direct"));
    let (front_end, mut blk) = disk.driver(ALL);
    let block = lab::pattern(1, 4096);
    assert_eq!(blk.write(0, &block).unwrap(), status::OK);
    let process = Process::serving(&disk.daemon);
    process.limit(Resource::Data, "VmData", 0);
    let mut failed = 0;
    for round in 0..20 {
        // Each in buffers of 4000 bytes.
        blk.set_segment_len(4000);
        let large = lab::pattern(round, 65536);
        let tickets: Vec<_> = (1..6)
            .map(|at| {
                blk.submit(kind::OUT, at * 128, Data::ToDevice(&large))
                    .unwrap()
            })
            .collect();
        for ticket in tickets {
            let (status, _) = blk.wait(ticket).unwrap();
            assert!(matches!(status, status::OK | status::IOERR), "{status}");
            failed += u32::from(status == status::IOERR);
        }
        blk.set_segment_len(usize::MAX);
        assert_eq!(blk.read(0, 4096).unwrap(), (status::OK, block.clone()));
    }
    println!("{failed} of 100 failed");
    assert!(failed > 0, "nothing was short of memory");
    process.unlimit(Resource::Data);
    process.limit(Resource::As, "VmSize", 0);
    // The next front end's memory cannot be mapped: its loss.
    drop(front_end);
    let memory = GuestMemory::with_size(1 << 30).unwrap();
    let refused = FrontEnd::connect(&disk.socket, SOON).and_then(|mut front_end| {
        front_end.handshake(ALL | features::VERSION_1, ProtocolFeatures::REPLY_ACK)?;
        front_end.set_mem_table(&memory)
    });
    assert!(refused.is_err(), "1 GiB was mapped beyond the limit");
    assert!(disk.daemon.is_running(), "{}", disk.daemon.stderr());
    process.unlimit(Resource::As);
    let (_front_end, mut blk) = disk.driver(ALL);
    assert_eq!(blk.read(0, 4096).unwrap(), (status::OK, block));
    let log = disk.daemon.stderr();
    assert!(!log.contains("panicked"), "{log}");
}
