//! Requests that wait hold up nobody but themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod lease;
mod share;

use std::fs::{self, File};
use std::time::{Duration, Instant};

use lab::frontend::Ticket;
use lab::frontend::fs::{Caller, Fs, FuseReply, REQUEST_QUEUE};
use lease::Lease;
use rustix::process::{Pid, Signal, kill_process};
use share::session::{OPEN, ROOT, Session, number, words};
use share::{SOON, Share};
use virtiofsd::fuse::Opcode;

/// As much as takes a while, on any disk.
const BIG: u64 = 192 << 20;

/// A sync takes the time of all that the host has to write, other tests' files included.
const LONG: Duration = Duration::from_secs(120);

/// Sends `request`, and then one that is quick; which of them is answered first?
fn overtakes(fs: &mut Fs, request: Ticket) -> FuseReply {
    let quick = fs
        .submit(
            Opcode::Getattr as u32,
            Caller::root(ROOT),
            &[&[0; 16]],
            &[104],
        )
        .unwrap();
    let mut first = Vec::new();
    while first.is_empty() {
        first = fs.wait_any(SOON).unwrap();
    }
    assert_eq!(first[0].0, quick, "the quick one waits behind the slow one");
    let deadline = Instant::now() + LONG;
    loop {
        match fs.wait_any(SOON).unwrap().pop() {
            Some((ticket, reply)) if ticket == request => return reply,
            other => assert!(other.is_none() && Instant::now() < deadline, "no answer"),
        }
    }
}

fn copy(fs: &mut Fs, from: (u64, u64), to: (u64, u64), len: u64) -> Ticket {
    let numbers = [from.1, 0, to.0, to.1, 0, len, 0];
    let body: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let caller = Caller::root(from.0);
    fs.submit(Opcode::CopyFileRange as u32, caller, &[&body], &[8])
        .unwrap()
}

#[test]
fn a_long_copy_and_a_sync_of_all_hold_up_nothing() {
    let share = Share::start("fs-slow");
    let source = File::create(share.directory.join("from")).unwrap();
    source.set_len(BIG).unwrap();
    let (_front_end, mut fs) = share.mounted();
    let mut session = Session(&mut fs);
    let node = session.lookup("from").unwrap();
    let from = (node, session.open(node));
    let to = session.create("to");
    let copying = copy(&mut fs, from, to, BIG);
    let copied = overtakes(&mut fs, copying);
    assert_eq!((copied.error, number(&copied.body, 0)), (0, BIG));
    assert_eq!(fs::metadata(share.directory.join("to")).unwrap().len(), BIG);
    // All of that is still to be written.
    let syncing = fs
        .submit(Opcode::Syncfs as u32, Caller::root(ROOT), &[&[0; 8]], &[0])
        .unwrap();
    assert_eq!(overtakes(&mut fs, syncing).error, 0);
}

#[test]
fn a_file_that_the_host_has_leased_holds_up_nothing() {
    for flags in [libc::O_RDONLY, libc::O_WRONLY | libc::O_TRUNC] {
        let share = Share::start("fs-lease");
        let path = share.directory.join("leased");
        fs::write(&path, "content").unwrap();
        let (_front_end, mut fs) = share.mounted();
        let node = Session(&mut fs).lookup("leased").unwrap();
        let lease = Lease::take(&path);
        let body = words(&[flags.cast_unsigned(), 0]);
        let opening = fs
            .submit(Opcode::Open as u32, Caller::root(node), &[&body], &[OPEN])
            .unwrap();
        for _ in 0..50 {
            assert_eq!(
                Session(&mut fs)
                    .call(Opcode::Getattr, ROOT, &[&[0; 16]], 104)
                    .error,
                0
            );
        }
        let early = fs.wait_any(Duration::from_millis(50)).unwrap();
        assert!(early.is_empty(), "opened under the lease");
        drop(lease);
        let opened = fs.wait(opening).unwrap();
        assert_eq!(opened.error, 0);
        // Not one that reads and writes without waiting.
        let handle = number(&opened.body, 0);
        let status = fs::read_dir(format!("/proc/{}/fdinfo", share.daemon.pid()))
            .unwrap()
            .filter_map(|info| fs::read_to_string(info.unwrap().path()).ok())
            .filter(|info| info.contains("flags:\t0104000") || info.contains("flags:\t0104001"))
            .count();
        assert_eq!(status, 0, "O_NONBLOCK is left over");
        assert_eq!(Session(&mut fs).release(Opcode::Release, (node, handle)), 0);
    }
}

/// The answer to `GET_VRING_BASE` waits for what cannot be called off, and hurries the rest.
#[test]
fn a_stop_awaits_what_is_under_way() {
    let share = Share::start("fs-slow-stop");
    let source = File::create(share.directory.join("from")).unwrap();
    source.set_len(BIG * 3).unwrap();
    let (mut front_end, mut fs) = share.mounted();
    let mut session = Session(&mut fs);
    let node = session.lookup("from").unwrap();
    let from = (node, session.open(node));
    let to = session.create("to");
    let copying = copy(&mut fs, from, to, BIG * 3);
    std::thread::sleep(Duration::from_millis(20));
    let base = front_end.stop_queue(REQUEST_QUEUE).unwrap();
    assert_eq!(
        base,
        fs.queue_mut().used_idx().unwrap(),
        "taken and not completed"
    );
    let copied = fs.wait(copying).unwrap();
    assert_eq!(copied.error, 0);
    let copied = number(&copied.body, 0);
    assert_eq!(
        copied,
        fs::metadata(share.directory.join("to")).unwrap().len()
    );
    assert!(
        copied > 0 && copied.is_multiple_of(64 << 20),
        "whole steps: {copied}"
    );
}

/// A large file frees its blocks when the guest forgets it, on no queue's time.
#[test]
fn a_large_file_is_freed_aside() {
    for options in [&[][..], &["--max-open", "1"]] {
        let share = Share::start_with("fs-free", |daemon| daemon.args(options));
        let path = share.directory.join("large");
        let file = File::create(&path).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BIG).unwrap();
        drop(file);
        let (_front_end, mut fs) = share.mounted();
        let mut session = Session(&mut fs);
        let node = session.lookup("large").unwrap();
        assert_eq!(
            session.call(Opcode::Unlink, ROOT, &[b"large\0"], 0).error,
            0
        );
        session.forget(node, 1);
        let held = || {
            fs::read_dir(format!("/proc/{}/fd", share.daemon.pid()))
                .unwrap()
                .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
                .any(|target| target.starts_with(&share.directory) && target != share.directory)
        };
        let deadline = Instant::now() + SOON;
        while held() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!held(), "the file is held for ever");
    }
}

#[test]
fn a_daemon_that_stands_still_for_seconds_loses_nothing() {
    let share = Share::start("fs-frozen");
    let (_front_end, mut fs) = share.mounted();
    let file = Session(&mut fs).create("file");
    let pid = Pid::from_raw(share.daemon.serving_pid().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let asked: Vec<Ticket> = (0..20)
        .map(|_| {
            let caller = Caller::root(ROOT);
            fs.submit(Opcode::Getattr as u32, caller, &[&[0; 16]], &[104])
                .unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    kill_process(pid, Signal::CONT).unwrap();
    for ticket in asked {
        assert_eq!(fs.wait(ticket).unwrap().error, 0);
    }
    assert_eq!(Session(&mut fs).write(file, 0, b"content").error, 0);
    assert_eq!(fs::read(share.directory.join("file")).unwrap(), b"content");
}
