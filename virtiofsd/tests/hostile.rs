//! Guests and front ends that break the rules: one clear answer, and the daemon lives on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod share;

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use lab::frontend::fs::{Caller, Fs, header};
use lab::frontend::garbage::{self, Reaction};
use lab::frontend::{
    Descriptor, DriverQueue, FrontEnd, GuestAddress, GuestMemory, Result, descriptor_flags as flag,
};
use lab::inside::Process;
use share::session::{ROOT, Session, transfer};
use share::{SOON, Share};
use virtiofsd::fuse::Opcode;

const MOMENT: Duration = Duration::from_millis(500);

/// What the daemon says of memory that it touched and that is gone.
const TAKEN_AWAY: &str = "took memory of its guest away";

/// What a hostile guest does to a queue; the buffer holds a sound request's header.
type Attack = fn(&mut DriverQueue, GuestAddress) -> Result<()>;

fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        addr,
        len,
        flags,
        next,
    }
}

/// Broken chains: each is given back with length 0, the queue goes on.
const BAD_CHAINS: [(&str, Attack); 8] = [
    ("loop", |q, b| q.submit_loop(b, 4)),
    ("next out of range", |q, b| q.submit_next_out_of_range(b)),
    ("nested indirect table", |q, b| q.submit_nested_indirect(b)),
    ("zero length", |q, b| {
        q.submit_raw(0, &[descriptor(b.0, 0, 0, 0)])
    }),
    ("outside memory", |q, _| {
        q.submit_raw(0, &[descriptor(1 << 50, 56, 0, 0)])
    }),
    ("address overflow", |q, _| {
        q.submit_raw(0, &[descriptor(u64::MAX - 8, 56, 0, 0)])
    }),
    ("readable after writable", |q, b| {
        let first = descriptor(b.0, 64, flag::NEXT | flag::WRITE, 1);
        q.submit_raw(0, &[first, descriptor(b.0, 64, 0, 0)])
    }),
    ("nothing readable", |q, b| {
        q.submit_raw(0, &[descriptor(b.0, 64, flag::WRITE, 0)])
    }),
];

fn assert_no_panic(share: &mut Share) {
    assert!(share.daemon.is_running());
    let said = share.daemon.stderr();
    assert!(!said.contains("panicked"), "{said}");
    share.assert_serves();
}

#[test]
fn broken_chains_are_given_back_and_other_queues_go_on() {
    let mut share = Share::start("fs-chains");
    for (name, attack) in BAD_CHAINS {
        let memory = GuestMemory::with_size(16 << 20).unwrap();
        let mut front_end = share.front_end(u64::MAX, &memory);
        let mut victim = front_end.set_up_queue(1, 64).unwrap();
        let mut other = Fs::new(front_end.set_up_queue(2, 64).unwrap());
        other.init(38, 0).unwrap();
        let buffer = memory.alloc(4096, 4096).unwrap();
        memory
            .write(
                buffer,
                &header(56, Opcode::Getattr as u32, 1, Caller::root(ROOT)),
            )
            .unwrap();
        attack(&mut victim, buffer).unwrap();
        assert!(victim.any_used(SOON).unwrap(), "{name}: no answer");
        let listed = Session(&mut other).lookup("nothing");
        assert_eq!(listed, Err(-libc::ENOENT), "{name}: the other queue");
    }
    assert_no_panic(&mut share);
    assert!(share.daemon.stderr().contains("the guest broke a rule"));
}

#[test]
fn a_ring_that_overflows_stops_its_queue_alone() {
    let mut share = Share::start("fs-rings");
    let memory = GuestMemory::with_size(16 << 20).unwrap();
    let mut front_end = share.front_end(u64::MAX, &memory);
    let mut victim = front_end.set_up_queue(1, 64).unwrap();
    let mut other = Fs::new(front_end.set_up_queue(2, 64).unwrap());
    other.init(38, 0).unwrap();
    victim.overflow_avail().unwrap();
    share
        .daemon
        .wait_stderr("queue stopped until it is set up again", SOON)
        .unwrap();
    assert_eq!(Session(&mut other).lookup("nothing"), Err(-libc::ENOENT));
    front_end.stop_queue(1).unwrap();
    let queue = front_end.lay_out_queue(1, 64).unwrap();
    front_end.attach_queue(&queue, 0).unwrap();
    assert_eq!(
        Session(&mut Fs::new(queue)).lookup("nothing"),
        Err(-libc::ENOENT)
    );
    drop(front_end);
    assert_no_panic(&mut share);
}

#[test]
fn a_guest_that_mounts_without_end_does_not_flood_the_log() {
    let mut share = Share::start("fs-mounts");
    let (front_end, mut fs) = share.driver();
    for _ in 0..200 {
        fs.init(38, 0).unwrap();
        let destroyed = Session(&mut fs).call(Opcode::Destroy, 0, &[], 0);
        assert_eq!(destroyed.error, 0);
    }
    let lines = share.daemon.stderr().lines().count();
    assert!(lines < 100, "{lines} lines");
    drop(front_end);
    assert_no_panic(&mut share);
}

/// The error in a reply, if there is one.
fn answer(fs: &mut Fs, readable: &[&[u8]], writable: &[usize]) -> Option<i32> {
    let reply = fs.raw(readable, writable).unwrap();
    let bytes = reply.buffers.concat();
    (reply.used_len >= 16).then(|| i32::from_le_bytes(bytes[4..8].try_into().unwrap()))
}

#[test]
fn requests_that_lie_about_themselves_are_answered_with_an_error() {
    let mut share = Share::start("fs-lies");
    let (front_end, mut fs) = share.mounted();
    let file = Session(&mut fs).create("file");
    let lookup = Opcode::Lookup as u32;
    let root = Caller::root(ROOT);
    // The length: less than a header, less than the arguments, more than was sent, very much.
    for len in [0, 39, 56, 1000, u32::MAX] {
        let head = header(len, Opcode::Getattr as u32, 7, root);
        let error = answer(&mut fs, &[&head, &[0; 8]], &[16, 104]);
        assert_eq!(error, Some(-libc::EINVAL), "length {len}");
    }
    // Half a header: there is nothing to answer to but the error is told.
    assert_eq!(answer(&mut fs, &[&[0; 20]], &[16]), Some(-libc::EINVAL));
    // No room for an answer, not even for its header.
    for room in [&[][..], &[1], &[15]] {
        assert_eq!(
            answer(&mut fs, &[&header(42, lookup, 7, root), b"a\0"], room),
            None
        );
    }
    // Room for the header only.
    assert_eq!(
        answer(&mut fs, &[&header(45, lookup, 7, root), b"file\0"], &[16]),
        Some(-libc::EINVAL)
    );
    for opcode in [0, 7, 19, 54, 4096, u32::MAX] {
        let error = answer(&mut fs, &[&header(40, opcode, 7, root)], &[16, 200]);
        assert_eq!(error, Some(-libc::ENOSYS), "opcode {opcode}");
    }
    for (name, errno) in [
        ("../x\0", libc::EINVAL),
        ("no end", libc::EINVAL),
        ("..\0", libc::EINVAL),
    ] {
        let head = header(40 + u32::try_from(name.len()).unwrap(), lookup, 7, root);
        assert_eq!(
            answer(&mut fs, &[&head, name.as_bytes()], &[16, 128]),
            Some(-errno),
            "{name}"
        );
    }
    // A write of more than was sent, and of more than is allowed.
    for size in [101, 1 << 20, (1 << 20) + 1, u32::MAX] {
        let head = header(180, Opcode::Write as u32, 7, Caller::root(file.0));
        let body = transfer(file.1, 0, size);
        let error = answer(&mut fs, &[&head, &body, &[7; 100]], &[16, 8]);
        assert_eq!(error, Some(-libc::EINVAL), "write of {size}");
    }
    assert_eq!(
        std::fs::metadata(share.directory.join("file"))
            .unwrap()
            .len(),
        0
    );
    // A read of more than there is room for gives what there is room for.
    assert_eq!(Session(&mut fs).write(file, 0, b"0123456789").error, 0);
    let head = header(80, Opcode::Read as u32, 7, Caller::root(file.0));
    let reply = fs
        .raw(&[&head, &transfer(file.1, 0, u32::MAX)], &[16, 4])
        .unwrap();
    assert_eq!((reply.used_len, &reply.buffers[1][..]), (20, &b"0123"[..]));
    let reply = fs
        .raw(&[&head, &transfer(file.1, 0, u32::MAX)], &[16])
        .unwrap();
    assert_eq!(reply.used_len, 16);
    // Offsets that the host would take for "where the file stands", or for negative ones.
    for offset in [u64::MAX, 1 << 63, (1 << 63) - 50] {
        assert_eq!(
            Session(&mut fs).read(file, offset, 100).error,
            -libc::EINVAL,
            "{offset:#x}"
        );
        assert_eq!(
            Session(&mut fs).write(file, offset, &[7; 100]).error,
            -libc::EINVAL
        );
    }
    // Where no answer is due none is given.
    for opcode in [Opcode::Forget, Opcode::BatchForget, Opcode::Interrupt] {
        let head = header(48, opcode as u32, 7, root);
        assert_eq!(
            answer(&mut fs, &[&head, &[0xff; 8]], &[16, 16]),
            None,
            "{opcode:?}"
        );
    }
    drop((front_end, fs));
    assert_no_panic(&mut share);
}

#[test]
fn a_guest_cannot_flood_the_log() {
    let share = Share::start("fs-flood");
    let (_front_end, mut fs) = share.mounted();
    for _ in 0..2000 {
        answer(&mut fs, &[&[0; 20]], &[16]);
        assert!(Session(&mut fs).lookup("..").is_err());
    }
    let lines = share.daemon.stderr().lines().count();
    assert!(lines < 60, "{lines} log lines");
}

#[test]
fn garbage_on_the_socket_ends_the_connection_and_nothing_else() {
    let mut share = Share::start("fs-garbage");
    let socket = share.socket.clone();
    for seed in 0..8 {
        garbage::random(&socket, seed, 300, MOMENT).unwrap();
    }
    garbage::partial_then_close(&socket, MOMENT).unwrap();
    for reaction in [
        garbage::wrong_version(&socket, MOMENT).unwrap(),
        garbage::unknown_request(&socket, MOMENT).unwrap(),
        garbage::huge_size(&socket, MOMENT).unwrap(),
        garbage::missing_fds(&socket, MOMENT).unwrap(),
    ] {
        assert!(!matches!(reaction, Reaction::Answered(_)), "{reaction:?}");
    }
    assert!(matches!(
        garbage::alive(&socket, SOON).unwrap(),
        Reaction::Answered(_)
    ));
    assert_no_panic(&mut share);
}

#[test]
fn a_front_end_that_goes_mid_request_is_followed_by_the_next() {
    let mut share = Share::start("fs-vanish");
    std::fs::write(share.directory.join("file"), vec![7; 8 << 20]).unwrap();
    for round in 0..12 {
        let (front_end, mut fs) = share.mounted();
        let mut session = Session(&mut fs);
        let node = session.lookup("file").unwrap();
        let file = (node, session.open(node));
        for n in 0..24 {
            session.submit_read(file, n << 18, 1 << 18);
        }
        if round % 2 == 0 {
            front_end.stream().write_all(&[1, 2, 3]).unwrap();
        }
        drop((front_end, fs));
    }
    assert_no_panic(&mut share);
}

#[test]
fn too_little_memory_is_refused_and_the_next_front_end_served() {
    let mut share = Share::start("fs-little");
    let memory = GuestMemory::with_size(4 << 20).unwrap();
    let mut front_end = share.front_end(u64::MAX, &memory);
    let mut regions = memory.regions().unwrap();
    regions[0].memory_size = 4096;
    let served = front_end
        .set_mem_regions(&memory, &regions)
        .and_then(|()| front_end.set_up_queue(1, 64))
        .map(Fs::new)
        .and_then(|mut fs| {
            fs.exchange().set_timeout(MOMENT);
            fs.init(38, 0)
        });
    assert!(served.is_err(), "a ring outside memory was served");
    drop(front_end);
    assert_no_panic(&mut share);
}

/// Takes a guest's memory away; what the daemon says then.
type Loss = fn(&mut FrontEnd, &mut Fs) -> &'static str;

/// The thread of a queue that was idle finds out.
fn shrunk_while_idle(_front_end: &mut FrontEnd, fs: &mut Fs) -> &'static str {
    fs.exchange().queue().memory().set_file_len(0).unwrap();
    fs.exchange().queue().kick_always().unwrap();
    TAKEN_AWAY
}

/// Reads and io_uring are under way.
fn shrunk_under_load(_front_end: &mut FrontEnd, fs: &mut Fs) -> &'static str {
    let mut session = Session(fs);
    let file = session.create("file");
    assert_eq!(session.write(file, 0, &[6; 65536]).error, 0);
    for _ in 0..24 {
        session.submit_read(file, 0, 65536);
    }
    fs.exchange().queue().memory().set_file_len(0).unwrap();
    fs.exchange().queue().kick_always().unwrap();
    TAKEN_AWAY
}

/// The session's thread reads indices when it is given a ring.
fn shrunk_while_stopped(front_end: &mut FrontEnd, fs: &mut Fs) -> &'static str {
    let queue = fs.exchange().queue();
    let base = front_end.stop_queue(queue.index()).unwrap();
    queue.memory().set_file_len(0).unwrap();
    front_end.attach_queue(queue, base).unwrap();
    queue.kick_always().unwrap();
    "queue cannot run"
}

/// In the sandbox, and where seccomp kills: what the guard against lost memory does is on the lists
/// of all threads that touch memory.
#[test]
fn a_front_end_that_shrinks_its_memory_loses_its_queues_and_nothing_else() {
    lab::need::root().unwrap();
    let mut share = Share::start_with("fs-shrunk", |daemon| {
        daemon.args(["--sandbox", "namespace", "--seccomp", "kill"])
    });
    // Whoever serves is inside by then.
    share.assert_serves();
    let serving = share.daemon.serving_pid().unwrap();
    for lose in [shrunk_while_idle, shrunk_under_load, shrunk_while_stopped] as [Loss; 3] {
        let (mut front_end, mut fs) = share.mounted();
        assert_eq!(Process::of(serving).status("Seccomp"), "2");
        let before = share.daemon.stderr();
        let expected = lose(&mut front_end, &mut fs);
        let count = |said: &str| said.matches(expected).count();
        let deadline = Instant::now() + SOON;
        while count(&share.daemon.stderr()) == count(&before) {
            assert!(Instant::now() < deadline, "{}", share.daemon.stderr());
            thread::sleep(MOMENT / 50);
        }
        drop((front_end, fs));
        share.assert_serves();
        assert_eq!(share.daemon.serving_pid().unwrap(), serving);
    }
    assert_no_panic(&mut share);
}
