//! What the daemon may use of the host.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

/// How many open files a guest with many cached files needs, at the most.
const WANTED: u64 = 1_000_000;

/// What no process may go beyond (proc(5)).
const NR_OPEN: &str = "/proc/sys/fs/nr_open";

/// The limit of open files cannot be raised.
#[derive(Debug, Error)]
#[error("cannot raise the limit of open files (RLIMIT_NOFILE) to {limit}")]
pub struct LimitError {
    limit: u64,
    source: io::Error,
}

/// Raises the limit of open files as far as it makes sense and the system lets us, and returns it:
/// every node that a guest's kernel caches is an open file here. An ordinary user gets what its
/// hard limit allows.
///
/// # Errors
/// When the system refuses even that.
pub fn raise_open_files() -> Result<u64, LimitError> {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let wanted = hard.max(WANTED.min(nr_open().unwrap_or(hard)));
    match set(wanted) {
        Err(Errno::PERM) if wanted > hard => set(hard).map(|()| hard),
        result => result.map(|()| wanted),
    }
    .map_err(|errno| LimitError {
        limit: wanted,
        source: errno.into(),
    })
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
