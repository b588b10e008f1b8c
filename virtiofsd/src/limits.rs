//! What the daemon may use of the host.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

/// The limit of open files cannot be raised.
#[derive(Debug, Error)]
#[error("cannot raise the limit of open files (RLIMIT_NOFILE) to {wanted}")]
pub struct LimitError {
    wanted: u64,
    source: io::Error,
}

/// Raises the soft limit of open files to the hard one, and returns it: every node that a guest's
/// kernel caches is an open file here.
///
/// # Errors
/// When the system refuses.
pub fn raise_open_files() -> Result<u64, LimitError> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(u64::MAX);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .map_err(|errno| LimitError {
        wanted,
        source: errno.into(),
    })?;
    Ok(wanted)
}
