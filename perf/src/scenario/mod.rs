//! What can be measured.

use std::io;
use std::path::Path;

pub mod blk;
pub mod boot;
pub mod documents;
pub mod fs;
pub mod net;
mod only;
mod outcome;
mod pattern;
pub mod pods;
mod quiet;
mod role;
pub mod run_options;
mod verdict;

pub use only::{Nothing, Only};
pub use outcome::Outcome;
pub use pattern::Pattern;
pub use role::{Role, SystemCalls};
pub use verdict::Verdict;

/// `TMPFS_MAGIC` (linux/magic.h).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Whose turn it is in a round, by place: there and back, so that nobody always follows the same one, and what drifts
/// during a run meets all alike.
fn order(round: u32, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| match round % 2 {
        0 => turn,
        _ => count - 1 - turn,
    })
}

/// Whether a directory is on tmpfs.
fn on_tmpfs(dir: &Path) -> io::Result<bool> {
    let status = rustix::fs::statfs(dir)?;
    Ok(u64::try_from(status.f_type).is_ok_and(|magic| magic == TMPFS_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn turns_go_there_and_back() {
        let turns: Vec<_> = (0..3).flat_map(|round| order(round, 3)).collect();
        assert_eq!(turns, [0, 1, 2, 2, 1, 0, 0, 1, 2]);
        assert_eq!(order(1, 0).count(), 0);
    }
}
