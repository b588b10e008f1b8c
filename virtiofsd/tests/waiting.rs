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
use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, features};
use lab::inside::Process;
use lab::medium::Medium;
use lease::Lease;
use rustix::process::{Pid, Resource, Signal, kill_process};
use share::session::{ENTRY, OPEN, ROOT, Session, number, transfer, words};
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

/// Looks a name up in a directory, and opens the file if it is there.
fn opened(fs: &mut Fs, directory: u64, name: &str) -> (u64, u64) {
    let mut session = Session(fs);
    let name: [&[u8]; 2] = [name.as_bytes(), b"\0"];
    let found = session.call(Opcode::Lookup, directory, &name, ENTRY);
    assert_eq!(found.error, 0);
    let node = number(&found.body, 0);
    let body = words(&[libc::O_RDWR.cast_unsigned(), 0]);
    let opened = session.call(Opcode::Open, node, &[&body], OPEN);
    assert_eq!(opened.error, 0);
    (node, number(&opened.body, 0))
}

/// A write at `offset` and a sync of a file.
fn write_and_sync(fs: &mut Fs, file: (u64, u64), offset: u64, data: &[u8]) -> [Ticket; 2] {
    let caller = Caller::root(file.0);
    let write = transfer(file.1, offset, data.len() as u32);
    let write = fs.submit(Opcode::Write as u32, caller, &[&write, data], &[8]);
    let sync = [&file.1.to_le_bytes()[..], &[0; 8]].concat();
    let sync = fs.submit(Opcode::Fsync as u32, caller, &[&sync], &[0]);
    [write.unwrap(), sync.unwrap()]
}

/// What lies elsewhere is read, written and looked up as ever.
fn serves(fs: &mut Fs, file: (u64, u64), directory: u64) {
    for round in 0..50 {
        let written = Session(fs).write(file, 0, &[round; 512]);
        assert_eq!((written.error, number(&written.body, 0)), (0, 512));
        assert_eq!(Session(fs).read(file, 0, 512).body, [round; 512]);
        let found = Session(fs).call(Opcode::Lookup, directory, &[b"file\0"], ENTRY);
        assert_eq!(found.error, 0);
    }
}

/// One directory of the share lies where nothing is answered for seconds, the other elsewhere.
#[test]
fn a_disk_that_answers_late_holds_up_who_needs_it_and_gives_no_error() {
    let medium = Medium::new("fs-late");
    let data = lab::pattern(1, 4096);
    fs::write(medium.shared.join("file"), data.repeat(2)).unwrap();
    let quick = medium.scratch.dir("quick").unwrap();
    fs::write(quick.join("file"), [0; 512]).unwrap();
    let share = Share::start_on("fs-not-late", medium.scratch.path(), |daemon| daemon);
    let memory = GuestMemory::with_size(64 << 20).unwrap();
    let mut front_end = share.front_end(u64::MAX, &memory);
    let [mut one, mut two] = [0, 1].map(|queue| {
        let queue = front_end.set_up_queue(REQUEST_QUEUE + queue, 128).unwrap();
        Fs::new(queue)
    });
    one.init(38, 0).unwrap();
    let mut session = Session(&mut one);
    let [slow, quick] = ["mount", "quick"].map(|name| session.lookup(name).unwrap());
    let (late, file) = (
        opened(&mut one, slow, "file"),
        opened(&mut one, quick, "file"),
    );

    // The kernel asks such a file system once whether it knows poll(2), and waits for the answer.
    for ticket in write_and_sync(&mut one, late, 1 << 20, &data) {
        assert_eq!(one.wait(ticket).unwrap().error, 0);
    }

    let held = medium.hold();
    let waiting = write_and_sync(&mut one, late, 8192, &data);
    serves(&mut one, file, quick);
    // The other queue's thread waits in the kernel with these.
    let read = Session(&mut two).submit_read(late, 0, 8192);
    let name: [&[u8]; 1] = [b"other\0"];
    let lookup = two.submit(Opcode::Lookup as u32, Caller::root(slow), &name, &[ENTRY]);
    serves(&mut one, file, quick);
    assert!(one.wait_any(Duration::from_millis(50)).unwrap().is_empty());
    assert!(two.wait_any(Duration::from_millis(50)).unwrap().is_empty());
    std::thread::scope(|scope| {
        // The answer is that everything taken is done: it waits for the disk.
        let stopped = scope.spawn(|| front_end.stop_queue(REQUEST_QUEUE).unwrap());
        std::thread::sleep(Duration::from_secs(1));
        assert!(!stopped.is_finished(), "answered before they were done");
        held.answer();
        stopped.join().unwrap();
    });
    let [written, synced] = waiting.map(|ticket| one.wait(ticket).unwrap());
    assert_eq!((written.error, number(&written.body, 0)), (0, 4096));
    assert_eq!(synced.error, 0);
    let read = two.wait(read).unwrap();
    assert!(read.error == 0 && read.body == data.repeat(2));
    let found = two.wait(lookup.unwrap()).unwrap();
    assert!(matches!(-found.error, 0 | libc::ENOENT), "{}", found.error);
    let on_disk = fs::read(medium.shared.join("file")).unwrap();
    let written = &on_disk[8192..][..data.len()];
    assert!(written == data, "what was written is not there");
    assert!(!share.daemon.stderr().contains("panicked"));
}

/// A front end's memory takes room in the daemon, too.
#[test]
fn a_front_end_whose_memory_there_is_no_room_for_is_refused_and_the_next_one_is_served() {
    let mut share = Share::start("fs-no-room");
    let (front_end, mut fs) = share.mounted();
    let file = Session(&mut fs).create("file");
    let process = Process::serving(&share.daemon);
    process.limit(Resource::As, "VmSize", 0);
    assert_eq!(Session(&mut fs).write(file, 0, b"content").error, 0);
    drop(front_end);
    let memory = GuestMemory::with_size(1 << 30).unwrap();
    let refused = FrontEnd::connect(&share.socket, SOON).and_then(|mut front_end| {
        let wanted = u64::MAX | features::VERSION_1;
        front_end.handshake(wanted, ProtocolFeatures::REPLY_ACK)?;
        front_end.set_mem_table(&memory)
    });
    assert!(refused.is_err(), "1 GiB was mapped beyond the limit");
    assert!(share.daemon.is_running(), "{}", share.daemon.stderr());
    process.unlimit(Resource::As);
    share.assert_serves();
    assert!(!share.daemon.stderr().contains("panicked"));
}
