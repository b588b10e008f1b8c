//! What becomes of writes: where there is no room, where none are allowed, and where the guest waits for the
//! disk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod mapping;
mod share;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use lab::bridge::Event;
use lab::frontend::fs::FuseReply;
use lab::medium::Medium;
use mapping::Sharing;
use share::Share;
use share::session::{OPEN, ROOT, Session, number, transfer, words};
use virtiofsd::fuse::Opcode;

/// `FUSE_WRITE_CACHE` and `FUSE_WRITE_KILL_SUIDGID`.
const CACHE: u32 = 1;
const KILL: u32 = 1 << 2;

/// `struct fuse_write_in`: the last words are `write_flags` and `flags`.
fn write(
    session: &mut Session<'_>,
    file: (u64, u64),
    data: &[u8],
    (how, flags): (u32, libc::c_int),
) -> FuseReply {
    let mut head = transfer(file.1, 0, data.len() as u32);
    head[20..24].copy_from_slice(&how.to_le_bytes());
    head[32..36].copy_from_slice(&flags.to_le_bytes());
    session.call(Opcode::Write, file.0, &[&head, data], 8)
}

fn open(session: &mut Session<'_>, name: &str, flags: libc::c_int) -> (u64, u64) {
    let node = session.lookup(name).unwrap();
    let flags = words(&[flags.cast_unsigned(), 0]);
    let opened = session.call(Opcode::Open, node, &[&flags], OPEN);
    assert_eq!(opened.error, 0);
    (node, number(&opened.body, 0))
}

/// Linux's client counts pages that it wrote back as written whatever the answer's count says: an fsync(2)
/// of the guest's would succeed, and the data be gone.
#[test]
fn pages_that_there_is_no_room_for_are_an_error_and_not_a_short_write() {
    lab::need::root().unwrap();
    const ROOM: usize = 256 << 10;
    let script = "mount -t tmpfs -o size=256k none . && cd . && touch file && chmod 4755 file";
    for kill in [0, KILL] {
        let share = Share::start_in_namespace("fs-full", script, |daemon| daemon);
        let (_front_end, mut fs) = share.mounted();
        let mut session = Session(&mut fs);
        let data = vec![7; 2 * ROOM];
        let file = open(&mut session, "file", libc::O_RDWR);
        let answer = write(&mut session, file, &data, (CACHE | kill, 0));
        assert_eq!(-answer.error, libc::ENOSPC, "{kill}");
        // Who looks at the count hears of what is in the file.
        let written = write(&mut session, file, &data, (kill, 0));
        assert_eq!(written.error, 0);
        let count = number(&written.body, 0) as usize;
        assert!(0 < count && count <= ROOM, "{count}");
        let read = session.read(file, 0, data.len() as u32);
        assert_eq!(read.body, data[..count]);
    }
}

/// Without a sandbox that mounts the directory read-only, it is the daemon alone that says no.
#[test]
fn nothing_is_written_by_a_handle_that_is_not_for_it() {
    lab::need::root().unwrap();
    for (option, expected) in [(Some("--readonly"), libc::EROFS), (None, libc::EBADF)] {
        let share = Share::start_with("fs-not-for-writing", |daemon| {
            daemon.args(["--sandbox", "none"]).args(option)
        });
        let path = share.directory.join("file");
        fs::write(&path, "content").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
        let (_front_end, mut fs) = share.mounted();
        let mut session = Session(&mut fs);
        let file = open(&mut session, "file", libc::O_RDONLY);
        for how in [0, CACHE, KILL, KILL | CACHE] {
            for flags in [0, libc::O_APPEND, libc::O_RDWR] {
                let answer = write(&mut session, file, b"more", (how, flags));
                assert_eq!(-answer.error, expected, "{how} {flags}");
            }
        }
        let body = [&file.1.to_le_bytes()[..], &[0; 8], &[1; 8], &[0; 8]].concat();
        let answer = session.call(Opcode::Fallocate, file.0, &[&body], 0);
        assert_eq!(-answer.error, expected);
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(fs::metadata(&path).unwrap().mode(), 0o104_755);
    }
}

/// A direct write with RWF_DSYNC, or on a mount with `-o sync`, is followed by no `FSYNC` of the guest's.
#[test]
fn a_synchronous_write_is_answered_when_it_is_on_stable_storage() {
    let medium = Medium::new("fs-dsync");
    let share = Share::start_on("fs-dsync-above", &medium.mount, |daemon| daemon);
    let (_front_end, mut fs) = share.mounted();
    let mut session = Session(&mut fs);
    let file = session.create("file");
    let synced = || {
        let events = medium.journal.events();
        let is_sync = |event: &&Event| matches!(event, Event::Sync(_));
        events.iter().filter(is_sync).count()
    };
    for how in [0, KILL] {
        let modes = [
            (0, 0),
            (libc::O_DSYNC, 1),
            (libc::O_SYNC, 1),
            (libc::O_APPEND | libc::O_DSYNC, 1),
        ];
        for (flags, expected) in modes {
            // Otherwise it goes the quick way.
            let path = medium.shared.join("file");
            fs::set_permissions(path, fs::Permissions::from_mode(0o4755)).unwrap();
            let before = synced();
            let answer = write(&mut session, file, b"data", (how, flags));
            assert_eq!((answer.error, number(&answer.body, 0)), (0, 4));
            assert_eq!(synced() - before, expected, "{how} {flags:#o}");
        }
    }
}

/// The guest's sync(2) means all that it sees as one file system.
#[test]
fn a_sync_of_all_means_other_mounts_in_the_share_too() {
    let medium = Medium::new("fs-syncfs");
    fs::write(medium.shared.join("file"), [0; 8192]).unwrap();
    let share = Share::start_on("fs-syncfs-above", medium.scratch.path(), |daemon| daemon);
    let (_front_end, mut fs) = share.mounted();
    let mut session = Session(&mut fs);
    session.lookup("mount").unwrap();
    // Dirty pages stay the host's until somebody asks for a sync, or half a minute has passed.
    let mut options = File::options();
    let path = medium.mount.join("file");
    let file = options.read(true).write(true).open(path).unwrap();
    let mapped = mapping::map(&file, 8192, Sharing::Shared).unwrap();
    mapped.write(0, b"dirty");
    assert!(medium.journal.is_empty());
    let synced = session.call(Opcode::Syncfs, ROOT, &[&[0; 8]], 0);
    assert_eq!(synced.error, 0);
    let deadline = Instant::now() + Duration::from_secs(4);
    while medium.journal.is_empty() {
        assert!(Instant::now() < deadline, "they are dirty still");
        std::thread::sleep(Duration::from_millis(5));
    }
}
