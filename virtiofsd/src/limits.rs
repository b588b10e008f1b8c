//! What the daemon may use of the host.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

/// How many open files a guest with many cached files needs, at the most.
const WANTED: u64 = 1_000_000;

/// What no process may go beyond (proc(5)).
const NR_OPEN: &str = "/proc/sys/fs/nr_open";

/// The limit of open files cannot be raised.
#[derive(Debug, Error)]
#[error("cannot set the limit of open files (RLIMIT_NOFILE) to {limit}; see --rlimit-nofile")]
pub struct LimitError {
    limit: u64,
    source: io::Error,
}

/// Raises the limit of open files as far as it makes sense and the system lets us, and returns it:
/// every node that a guest's kernel caches is an open file here. An ordinary user gets what its
/// hard limit allows. `asked` is a limit that somebody chose; 0 leaves what is.
///
/// # Errors
/// When the system refuses even that.
pub fn raise_open_files(asked: Option<u64>) -> Result<u64, LimitError> {
    match asked {
        Some(0) => return Ok(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)),
        Some(limit) => return set(limit).map(|()| limit).map_err(refused(limit)),
        None => {}
    }
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let wanted = hard.max(WANTED.min(nr_open().unwrap_or(hard)));
    match set(wanted) {
        Err(Errno::PERM) if wanted > hard => set(hard).map(|()| hard),
        result => result.map(|()| wanted),
    }
    .map_err(refused(wanted))
}

/// A table for so many descriptors takes 130 KiB of the kernel's memory.
const ROOM: u64 = 16384;

/// Has the kernel make the process' table of descriptors large at once, of which `open_files` may be
/// used. It would grow by doubling, and each time a thread has to wait until all processors have let go of
/// the old table (`synchronize_rcu` in fs/file.c): some 10 ms, several times during a guest's first look
/// at a tree. While there is one thread, nobody waits.
pub fn make_room_for_descriptors(any: impl AsFd, open_files: u64) {
    // Less than there is room for: no error matters, the table then grows as it did.
    let last = i32::try_from(open_files.min(ROOM).saturating_sub(1)).unwrap_or(0);
    drop(rustix::io::fcntl_dupfd_cloexec(any, last));
}

fn refused(limit: u64) -> impl FnOnce(Errno) -> LimitError {
    move |errno| LimitError {
        limit,
        source: errno.into(),
    }
}

fn set(limit: u64) -> Result<(), Errno> {
    let limit = (limit != u64::MAX).then_some(limit);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )
}

fn nr_open() -> Option<u64> {
    fs::read_to_string(NR_OPEN).ok()?.trim().parse().ok()
}
