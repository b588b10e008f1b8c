//! What can be measured.

use std::io;
use std::path::Path;

pub mod blk;
pub mod boot;
pub mod documents;
pub mod fs;
pub mod net;
mod outcome;
mod pattern;
pub mod pods;
mod quiet;
mod role;
pub mod run_options;
mod verdict;

pub use outcome::Outcome;
pub use pattern::Pattern;
pub use role::{Role, SystemCalls};
pub use verdict::Verdict;

/// `TMPFS_MAGIC` (linux/magic.h).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Whether a directory is on tmpfs.
fn on_tmpfs(dir: &Path) -> io::Result<bool> {
    let status = rustix::fs::statfs(dir)?;
    Ok(u64::try_from(status.f_type).is_ok_and(|magic| magic == TMPFS_MAGIC))
}
