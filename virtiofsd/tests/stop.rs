//! Stop under load: after the answer to `GET_VRING_BASE` nothing of ours writes guest memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use lab::frontend::fs::{Fs, REQUEST_QUEUE};
use lab::frontend::{FrontEnd, GuestMemory};
use share::session::Session;
use share::{SOON, Share};

const READ: u32 = 1 << 20;
const READS: u16 = 24;

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| (n * 13 + n / 1021).to_le_bytes()[0])
        .collect()
}

/// A file whose reads take the time of the host's disk.
fn cold(share: &Share) {
    let path = share.directory.join("file");
    if !path.exists() {
        std::fs::write(&path, pattern(usize::from(READS) << 20)).unwrap();
    }
    let file = File::open(&path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(file.as_fd(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// How many requests come before the reads.
const BEFORE: u16 = 3;

fn loaded(share: &Share, memory: &GuestMemory) -> (FrontEnd, Fs) {
    cold(share);
    let mut front_end = share.front_end(u64::MAX, memory);
    let mut fs = Fs::new(front_end.set_up_queue(REQUEST_QUEUE, 128).unwrap());
    fs.init(38, 0).unwrap();
    let mut session = Session(&mut fs);
    let node = session.lookup("file").unwrap();
    let file = (node, session.open(node));
    for n in 0..u64::from(READS) {
        session.submit_read(file, n * u64::from(READ), READ);
    }
    (front_end, fs)
}

#[test]
fn no_guest_byte_changes_after_the_answer() {
    let share = Share::start("fs-stop");
    let mut stopped_early = 0;
    for round in 0..8_u64 {
        let memory = GuestMemory::with_size(32 << 20).unwrap();
        let (mut front_end, mut fs) = loaded(&share, &memory);
        std::thread::sleep(Duration::from_micros(round * 300));
        let base = front_end.stop_queue(REQUEST_QUEUE).unwrap();
        let used = fs.queue_mut().used_idx().unwrap();
        let sum = memory.checksum_all().unwrap();
        assert_eq!(base, used, "taken and not completed");
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(
            memory.checksum_all().unwrap(),
            sum,
            "guest memory changed after the answer"
        );
        assert_eq!(fs.queue_mut().used_idx().unwrap(), used);
        stopped_early += u32::from(base < READS + BEFORE);
    }
    // How many were taken before the stop is chance; the checks above hold in any case.
    println!("{stopped_early} of 8 rounds stopped before all requests were taken");
}

#[test]
fn a_stopped_queue_goes_on_where_it_stopped() {
    let share = Share::start("fs-resume");
    let memory = GuestMemory::with_size(32 << 20).unwrap();
    let (mut front_end, mut fs) = loaded(&share, &memory);
    let base = front_end.stop_queue(REQUEST_QUEUE).unwrap();
    front_end.attach_queue(fs.queue_mut(), base).unwrap();
    let mut done = 0;
    while done < usize::from(READS) {
        let replies = fs.wait_any(SOON).unwrap();
        assert!(!replies.is_empty(), "{done} of {READS} requests answered");
        for (_, reply) in replies {
            assert_eq!((reply.error, reply.body.len()), (0, READ as usize));
            done += 1;
        }
    }
}

#[test]
fn no_guest_byte_changes_after_a_disconnect_was_noticed() {
    let mut share = Share::start("fs-drop");
    for round in 1..=6 {
        let memory = GuestMemory::with_size(32 << 20).unwrap();
        drop(loaded(&share, &memory));
        let ended = |share: &Share| {
            share
                .daemon
                .stderr()
                .matches("front end disconnected")
                .count()
                >= round
        };
        let deadline = std::time::Instant::now() + SOON;
        while !ended(&share) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(ended(&share), "{}", share.daemon.stderr());
        let sum = memory.checksum_all().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(
            memory.checksum_all().unwrap(),
            sum,
            "guest memory changed after the end"
        );
    }
    assert!(share.daemon.is_running());
}

/// A front end that comes back finds its guest's files open: nothing is forgotten in between.
#[test]
fn a_guests_files_stay_open_across_a_reconnect() {
    let share = Share::start("fs-reconnect");
    let (first, mut fs) = share.mounted();
    let file = Session(&mut fs).create("file");
    assert_eq!(Session(&mut fs).write(file, 0, b"before").error, 0);
    drop((first, fs));
    let (_second, mut fs) = share.driver();
    assert_eq!(Session(&mut fs).read(file, 0, 100).body, b"before");
    // A guest that starts afresh begins with nothing.
    fs.init(38, 0).unwrap();
    assert_eq!(Session(&mut fs).read(file, 0, 100).error, -libc::EBADF);
}
