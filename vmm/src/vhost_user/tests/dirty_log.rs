//! Daemons mark what they write, of their own accord after they were lost, and no longer than asked.

use super::*;
use crate::memory::DirtyLog;

const PAGE: u64 = 4096;

fn follow(disk: &mut Disk) -> Result<(), SaveError> {
    disk.device.follow_log().recv_timeout(LIMIT).unwrap()
}

/// What is marked is what a read writes: data, status, used ring.
fn assert_marks_a_read(fixture: &Fixture, disk: &mut Disk, log: &DirtyLog) {
    disk.read(0, 8192);
    // Two pages of data, which begin on a page; headers and used ring have one each.
    let marked = || fixture.memory.marked(log);
    wait_for("four marks", || marked() == 4 * PAGE);
}

/// Takes marks until there are none: the used ring's may come after the request is seen to be done.
fn take(fixture: &Fixture, log: &DirtyLog) {
    let mut copy = std::fs::File::create(fixture.scratch.join("copy")).unwrap();
    wait_for("no more marks", || {
        fixture.memory.save_marked(log, &mut copy).unwrap();
        fixture.memory.marked(log) == 0
    });
}

fn marks_what_it_writes(start: impl Fn(&Fixture) -> Daemon) {
    let fixture = Fixture::new();
    let mut daemon = start(&fixture);
    let mut disk = fixture.disk();
    disk.start();
    disk.write(0, &[7; 8192]);
    let log = fixture.memory.begin_log().unwrap();
    assert_eq!(follow(&mut disk), Ok(()));
    // What a daemon marks when it is told of the log.
    take(&fixture, &log);
    assert_marks_a_read(&fixture, &mut disk, &log);
    take(&fixture, &log);

    // Nobody knows what a daemon did last: all of memory may be written.
    daemon.kill().unwrap();
    let all = fixture.memory.size();
    wait_for("the loss", || fixture.memory.marked(&log) == all);
    // Not copied: the file would have 4 GiB.
    for part in fixture.memory.parts() {
        log.take(&part, |_| Ok(())).unwrap();
    }
    let _daemon = start(&fixture);
    wait_for("the next one", || disk.device.condition().connected);
    disk.read(0, 512);
    take(&fixture, &log);
    assert_marks_a_read(&fixture, &mut disk, &log);
    take(&fixture, &log);

    fixture.memory.end_log();
    assert_eq!(follow(&mut disk), Ok(()));
    take(&fixture, &log);
    disk.read(0, 8192);
    disk.device.pause();
    wait_for("the pause", || disk.device.is_paused());
    assert_eq!(fixture.memory.marked(&log), 0);
    assert!(log.is_complete());
}

#[test]
fn our_daemon_marks_what_it_writes() {
    marks_what_it_writes(Fixture::daemon);
}

#[test]
fn a_daemon_that_does_not_serve_yet_marks_when_it_does() {
    let fixture = Fixture::new();
    let _daemon = fixture.daemon();
    let mut disk = fixture.disk();
    let log = fixture.memory.begin_log().unwrap();
    assert_eq!(follow(&mut disk), Ok(()));
    disk.start();
    disk.read(8, 512);
    take(&fixture, &log);
    assert_marks_a_read(&fixture, &mut disk, &log);
}

#[test]
fn a_daemon_of_others_marks_what_it_writes() {
    marks_what_it_writes(Fixture::qemu_storage_daemon);
}
