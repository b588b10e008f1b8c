//! Locks among programs: flock(2), and fcntl(2)'s of processes and of open files.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{FlockOperation as Flock, fcntl_lock, flock};

use super::Transcript;
use crate::record_locks::{Kind, holder, lock};

pub fn run(t: &mut Transcript) {
    let path = t.at("locked");
    fs::write(&path, "0123456789").unwrap();
    whole_files(t, &path);
    ranges(t, &path);
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn whole_files(t: &mut Transcript, path: &Path) {
    let (one, two) = (open(path), open(path));
    t.tried("flock", flock(&one, Flock::LockExclusive));
    t.tried(
        "flock by another",
        flock(&two, Flock::NonBlockingLockExclusive),
    );
    t.tried(
        "flock shared by another",
        flock(&two, Flock::NonBlockingLockShared),
    );
    t.tried("make it shared", flock(&one, Flock::LockShared));
    t.tried(
        "flock shared by another",
        flock(&two, Flock::NonBlockingLockShared),
    );
    t.tried(
        "make it exclusive again",
        flock(&one, Flock::NonBlockingLockExclusive),
    );
    t.tried(
        "flock of a clone",
        flock(one.try_clone().unwrap(), Flock::NonBlockingLockShared),
    );
    t.tried("unlock", flock(&one, Flock::Unlock));
    drop(one);
    t.tried(
        "flock after the other was closed",
        flock(&two, Flock::NonBlockingLockExclusive),
    );
    let read_only = File::open(path).unwrap();
    drop(two);
    t.tried(
        "flock what is open to read",
        flock(&read_only, Flock::NonBlockingLockExclusive),
    );
    t.tried(
        "flock a directory",
        flock(
            File::open(t.at("")).unwrap(),
            Flock::NonBlockingLockExclusive,
        ),
    );
    let (one, two) = (open(path), open(path));
    t.tried(
        "lock of a process",
        fcntl_lock(&one, Flock::NonBlockingLockExclusive),
    );
    t.tried(
        "the same process's",
        fcntl_lock(&two, Flock::NonBlockingLockExclusive),
    );
    t.tried("flock beside it", flock(&two, Flock::NonBlockingLockShared));
}

fn ranges(t: &mut Transcript, path: &Path) {
    let (one, two) = (open(path), open(path));
    t.tried("lock a range", lock(&one, Kind::Write, 2, 4));
    t.tried("the same by another", lock(&two, Kind::Write, 2, 4));
    t.tried("part of it, to read", lock(&two, Kind::Read, 5, 10));
    t.tried("beside it", lock(&two, Kind::Write, 6, 2));
    t.note("who holds it", holder(&two, Kind::Write, 0, 100));
    t.note("nobody there", holder(&two, Kind::Write, 6, 100));
    t.tried("unlock the middle", lock(&one, Kind::None, 3, 1));
    t.tried("lock the middle", lock(&two, Kind::Read, 3, 1));
    t.tried("not more", lock(&two, Kind::Read, 3, 2));
    t.tried("to the end of all files", lock(&one, Kind::Write, 8, 0));
    t.tried("far away", lock(&two, Kind::Read, 1 << 40, 1));
    drop(one);
    t.tried("after it was closed", lock(&two, Kind::Write, 0, 0));
    let read_only = File::open(path).unwrap();
    drop(two);
    t.tried(
        "write lock of what is open to read",
        lock(&read_only, Kind::Write, 0, 1),
    );
    t.tried("read lock of it", lock(&read_only, Kind::Read, 0, 1));
}
