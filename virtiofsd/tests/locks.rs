//! Locks hold between a guest's processes, between guests, and on the host; who waits for one waits
//! alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod lease;
mod share;

use std::fs::File;
use std::time::{Duration, Instant};

use lab::frontend::fs::{Caller, Fs, REQUEST_QUEUE};
use lab::frontend::{FrontEnd, GuestMemory, Ticket};
use rustix::fs::{FlockOperation, fcntl_lock};
use share::session::{Session, number};
use share::{SOON, Share};
use virtiofsd::fuse::Opcode;

const READ: u32 = libc::F_RDLCK.cast_unsigned();
const WRITE: u32 = libc::F_WRLCK.cast_unsigned();
const NONE: u32 = libc::F_UNLCK.cast_unsigned();
const TO_THE_END: u64 = i64::MAX as u64;
const WHILE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy)]
struct Lock {
    file: (u64, u64),
    owner: u64,
    range: (u64, u64),
    kind: u32,
    flock: bool,
}

impl Lock {
    fn whole(file: (u64, u64), owner: u64, kind: u32) -> Self {
        Self {
            file,
            owner,
            range: (0, TO_THE_END),
            kind,
            flock: false,
        }
    }

    /// `struct fuse_lk_in`.
    fn body(&self) -> Vec<u8> {
        let numbers = [self.file.1, self.owner, self.range.0, self.range.1];
        let mut body: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let pid = 1000 + self.owner as u32;
        for word in [self.kind, pid, self.flock.into(), 0] {
            body.extend(word.to_le_bytes());
        }
        body
    }

    fn set(self, fs: &mut Fs) -> i32 {
        Session(fs)
            .call(Opcode::Setlk, self.file.0, &[&self.body()], 0)
            .error
    }

    fn wait(self, fs: &mut Fs) -> Ticket {
        let caller = Caller::root(self.file.0);
        fs.submit(Opcode::Setlkw as u32, caller, &[&self.body()], &[0])
            .unwrap()
    }

    /// Range, kind and process of what is in the way.
    fn get(self, fs: &mut Fs) -> (u64, u64, u32, u32) {
        let reply = Session(fs).call(Opcode::Getlk, self.file.0, &[&self.body()], 24);
        assert_eq!(reply.error, 0);
        let word = |at| lab::frontend::fs::u32_at(&reply.body, at).unwrap();
        (
            number(&reply.body, 0),
            number(&reply.body, 8),
            word(16),
            word(20),
        )
    }
}

const LOCKS: u64 = 1 << 1 | 1 << 10;

fn share(test: &str) -> Share {
    Share::start_with(test, |daemon| daemon.args(["--posix-lock", "--flock"]))
}

/// A guest with its urgent queue and one for requests.
fn guest(share: &Share) -> (FrontEnd, Fs, Fs) {
    let memory = GuestMemory::with_size(16 << 20).unwrap();
    let mut front_end = share.front_end(u64::MAX, &memory);
    let urgent = Fs::new(front_end.set_up_queue(0, 128).unwrap());
    let mut fs = Fs::new(front_end.set_up_queue(REQUEST_QUEUE, 128).unwrap());
    assert_eq!(fs.init(38, LOCKS).unwrap().flags & LOCKS, LOCKS);
    (front_end, urgent, fs)
}

fn interrupt(urgent: &mut Fs, unique: u64) {
    urgent
        .notify(
            Opcode::Interrupt as u32,
            Caller::root(0),
            &unique.to_le_bytes(),
        )
        .unwrap();
}

#[test]
fn owners_conflict_and_ranges_do_not() {
    let share = share("fs-lock");
    let (_front_end, _urgent, mut fs) = guest(&share);
    let file = Session(&mut fs).create("file");
    let lock = |owner, range, kind| Lock {
        range,
        ..Lock::whole(file, owner, kind)
    };
    assert_eq!(lock(1, (0, 9), WRITE).set(&mut fs), 0);
    assert_eq!(
        lock(1, (5, 14), READ).set(&mut fs),
        0,
        "its own is not in the way"
    );
    assert_eq!(lock(2, (0, 0), READ).set(&mut fs), -libc::EAGAIN);
    assert_eq!(lock(2, (10, 14), READ).set(&mut fs), 0, "two may read");
    assert_eq!(lock(2, (15, TO_THE_END), WRITE).set(&mut fs), 0);
    assert_eq!(lock(3, (0, 4), READ).get(&mut fs), (0, 4, WRITE, 1001));
    assert_eq!(
        lock(3, (20, 30), READ).get(&mut fs),
        (15, TO_THE_END, WRITE, 1002)
    );
    assert_eq!(lock(2, (15, 99), WRITE).get(&mut fs).2, NONE);
    assert_eq!(lock(1, (0, 4), NONE).set(&mut fs), 0);
    assert_eq!(lock(3, (0, 4), WRITE).set(&mut fs), 0);
    for (range, kind) in [((5, 4), READ), ((0, u64::MAX), READ), ((0, 1), 77)] {
        assert_eq!(lock(9, range, kind).set(&mut fs), -libc::EINVAL);
    }
    assert_eq!(
        Lock::whole((file.0, 99), 1, READ).set(&mut fs),
        -libc::EBADF
    );
}

/// POSIX: whoever closes any descriptor of a file loses all locks on it. An owner that is the open
/// file itself loses them when that goes.
#[test]
fn closing_unlocks() {
    let share = share("fs-lock-close");
    let (_front_end, _urgent, mut fs) = guest(&share);
    let file = Session(&mut fs).create("file");
    let second = (file.0, Session(&mut fs).open(file.0));
    let flush = |fs: &mut Fs, file: (u64, u64), owner: u64| {
        let body = [file.1, 0, owner].map(u64::to_le_bytes).concat();
        assert_eq!(
            Session(fs).call(Opcode::Flush, file.0, &[&body], 0).error,
            0
        );
    };
    assert_eq!(Lock::whole(file, 1, WRITE).set(&mut fs), 0);
    flush(&mut fs, file, 2);
    assert_eq!(Lock::whole(file, 3, WRITE).set(&mut fs), -libc::EAGAIN);
    flush(&mut fs, second, 1);
    assert_eq!(Lock::whole(file, 3, WRITE).set(&mut fs), 0);
    flush(&mut fs, file, 3);
    assert_eq!(Lock::whole(second, 4, READ).set(&mut fs), 0);
    assert_eq!(Session(&mut fs).release(Opcode::Release, second), 0);
    assert_eq!(Lock::whole(file, 5, WRITE).set(&mut fs), 0);
}

#[test]
fn who_waits_gets_the_lock_when_it_is_free_and_holds_up_nobody() {
    let share = share("fs-lock-wait");
    let (_front_end, _urgent, mut fs) = guest(&share);
    let file = Session(&mut fs).create("file");
    assert_eq!(Lock::whole(file, 1, WRITE).set(&mut fs), 0);
    let waiting = Lock::whole(file, 2, WRITE).wait(&mut fs);
    assert_eq!(Session(&mut fs).write(file, 0, b"meanwhile").error, 0);
    assert!(fs.wait_any(WHILE).unwrap().is_empty());
    assert_eq!(Lock::whole(file, 1, NONE).set(&mut fs), 0);
    assert_eq!(fs.wait(waiting).unwrap().error, 0);
    assert_eq!(Lock::whole(file, 1, READ).get(&mut fs).3, 1002);
}

#[test]
fn an_interrupt_and_a_stop_end_the_wait() {
    let share = share("fs-lock-end");
    let (mut front_end, mut urgent, mut fs) = guest(&share);
    let file = Session(&mut fs).create("file");
    assert_eq!(Lock::whole(file, 1, WRITE).set(&mut fs), 0);
    let waiting = Lock::whole(file, 2, WRITE).wait(&mut fs);
    assert!(fs.wait_any(WHILE).unwrap().is_empty());
    let unique = fs.last_unique();
    interrupt(&mut urgent, unique + 1000);
    assert!(
        fs.wait_any(WHILE).unwrap().is_empty(),
        "another's interrupt"
    );
    interrupt(&mut urgent, unique);
    assert_eq!(fs.wait(waiting).unwrap().error, -libc::EINTR);
    // The two go by different queues: the interrupt may be quicker than what it is about.
    interrupt(&mut urgent, unique + 1);
    let waiting = Lock::whole(file, 2, WRITE).wait(&mut fs);
    assert_eq!(fs.wait(waiting).unwrap().error, -libc::EINTR);
    let waiting = Lock::whole(file, 2, WRITE).wait(&mut fs);
    assert!(fs.wait_any(WHILE).unwrap().is_empty());
    let base = front_end.stop_queue(REQUEST_QUEUE).unwrap();
    assert_eq!(base, fs.queue_mut().used_idx().unwrap());
    // No signal came: with EINTR a program on Linux would see errno 512.
    assert_eq!(fs.wait(waiting).unwrap().error, -libc::EAGAIN);
}

#[test]
fn a_handle_that_goes_ends_the_wait_for_its_lock() {
    let share = share("fs-lock-release");
    let (_front_end, _urgent, mut fs) = guest(&share);
    let file = Session(&mut fs).create("file");
    let second = (file.0, Session(&mut fs).open(file.0));
    assert_eq!(Lock::whole(file, 1, WRITE).set(&mut fs), 0);
    let waiting = Lock::whole(second, 2, READ).wait(&mut fs);
    assert_eq!(Session(&mut fs).release(Opcode::Release, second), 0);
    assert_eq!(fs.wait(waiting).unwrap().error, -libc::EBADF);
}

/// What waits for the host, or for another guest, is not told when it may go on, and yet does.
#[test]
fn the_hosts_and_other_guests_locks_count() {
    let share = share("fs-lock-host");
    let other = Share::start_on("fs-lock-other", &share.directory, |daemon| {
        daemon.args(["--posix-lock", "--flock"])
    });
    let (_front_end, _urgent, mut fs) = guest(&share);
    let (_other_front_end, _other_urgent, mut others) = guest(&other);
    let file = Session(&mut fs).create("file");
    let node = Session(&mut others).lookup("file").unwrap();
    let body = share::session::words(&[libc::O_RDWR.cast_unsigned(), 0]);
    let opened = Session(&mut others).call(Opcode::Open, node, &[&body], 16);
    let theirs = (node, number(&opened.body, 0));
    let host = File::options()
        .read(true)
        .write(true)
        .open(share.directory.join("file"))
        .unwrap();
    for flock in [false, true] {
        let ours = |kind| Lock {
            flock,
            ..Lock::whole(file, 1, kind)
        };
        let theirs = |kind| Lock {
            flock,
            ..Lock::whole(theirs, 1, kind)
        };
        let hosts = |operation| {
            if flock {
                rustix::fs::flock(&host, operation)
            } else {
                fcntl_lock(&host, operation)
            }
        };
        assert_eq!(ours(WRITE).set(&mut fs), 0);
        assert!(hosts(FlockOperation::NonBlockingLockShared).is_err());
        let waiting = theirs(WRITE).wait(&mut others);
        assert!(others.wait_any(WHILE).unwrap().is_empty());
        assert_eq!(ours(NONE).set(&mut fs), 0);
        assert_eq!(others.wait(waiting).unwrap().error, 0);
        assert_eq!(ours(READ).set(&mut fs), -libc::EAGAIN);
        assert_eq!(theirs(NONE).set(&mut others), 0);
        hosts(FlockOperation::NonBlockingLockExclusive).unwrap();
        let waiting = ours(READ).wait(&mut fs);
        assert!(fs.wait_any(WHILE).unwrap().is_empty());
        hosts(FlockOperation::NonBlockingUnlock).unwrap();
        assert_eq!(fs.wait(waiting).unwrap().error, 0);
        assert_eq!(ours(NONE).set(&mut fs), 0);
    }
}

#[test]
fn whole_file_locks_belong_to_the_open_file() {
    let share = share("fs-flock");
    let (_front_end, _urgent, mut fs) = guest(&share);
    let file = Session(&mut fs).create("file");
    let second = (file.0, Session(&mut fs).open(file.0));
    let flock = |file, kind| Lock {
        flock: true,
        ..Lock::whole(file, 7, kind)
    };
    assert_eq!(flock(file, WRITE).set(&mut fs), 0);
    assert_eq!(
        flock(second, READ).set(&mut fs),
        -libc::EAGAIN,
        "the owner does not matter"
    );
    assert_eq!(
        Lock::whole(second, 7, WRITE).set(&mut fs),
        0,
        "the two kinds do not meet"
    );
    let waiting = flock(second, WRITE).wait(&mut fs);
    let body = [
        &file.1.to_le_bytes()[..],
        &share::session::words(&[0, 2]),
        &7_u64.to_le_bytes(),
    ];
    let released = Session(&mut fs).call(Opcode::Release, file.0, &[&body.concat()], 0);
    assert_eq!(released.error, 0);
    assert_eq!(fs.wait(waiting).unwrap().error, 0);
}

/// Opening a file again waits for the host's leases, as long as /proc/sys/fs/lease-break-time says.
#[test]
fn a_lock_on_a_file_that_the_host_has_leased_holds_up_nothing() {
    let share = share("fs-lock-lease");
    let path = share.directory.join("leased");
    std::fs::write(&path, "content").unwrap();
    let (_front_end, _urgent, mut fs) = guest(&share);
    let mut session = Session(&mut fs);
    let node = session.lookup("leased").unwrap();
    let file = (node, session.open(node));
    let lease = lease::Lease::take_from_writers(&path);
    let began = Instant::now();
    assert_eq!(Lock::whole(file, 1, READ).set(&mut fs), 0);
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(lease);
    assert_eq!(Session(&mut fs).release(Opcode::Release, file), 0);
}

/// A guest that waits and waits leaves room for what would let it go on, and is told so.
#[test]
fn who_waits_is_bounded() {
    let share = share("fs-lock-many");
    let (_front_end, _urgent, mut fs) = guest(&share);
    let file = Session(&mut fs).create("file");
    assert_eq!(Lock::whole(file, 1, WRITE).set(&mut fs), 0);
    let waiting: Vec<Ticket> = (0..40)
        .map(|n| Lock::whole(file, 100 + n, READ).wait(&mut fs))
        .collect();
    let mut refused = 0;
    loop {
        let replies = fs.wait_any(WHILE).unwrap();
        if replies.is_empty() {
            break;
        }
        for (_, reply) in replies {
            assert_eq!(reply.error, -libc::ENOLCK);
            refused += 1;
        }
    }
    assert_eq!(refused, waiting.len() - 128 / 4);
    assert_eq!(Lock::whole(file, 1, NONE).set(&mut fs), 0);
    let mut granted = 0;
    while granted < 128 / 4 {
        for (_, reply) in fs.wait_any(SOON).unwrap() {
            assert_eq!(reply.error, 0);
            granted += 1;
        }
    }
}

#[test]
fn without_the_options_the_guest_keeps_its_locks_itself() {
    let share = Share::start("fs-lock-none");
    let (_front_end, mut fs) = share.driver();
    assert_eq!(fs.init(38, LOCKS).unwrap().flags & LOCKS, 0);
    let file = Session(&mut fs).create("file");
    assert_eq!(Lock::whole(file, 1, READ).set(&mut fs), -libc::ENOSYS);
}
