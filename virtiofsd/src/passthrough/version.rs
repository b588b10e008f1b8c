//! Whether a file is still the one that the guest has in its cache.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::fstat;

/// What every change of a file's data changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    size: i64,
    /// Nanoseconds since 1970, as is the next.
    modified: i128,
    changed: i128,
}

/// The version of a file when the guest opened it last.
#[derive(Debug, Default)]
pub(super) struct LastOpened(Mutex<Option<Version>>);

/// File systems stamp changes with the time of a clock tick, some with whole seconds: two changes
/// within that may look like one.
const COARSEST_STAMP: Duration = Duration::from_secs(2);

impl LastOpened {
    /// Notes that the guest opens `file`; whether it is unchanged since the time before, so that
    /// what the guest's kernel has cached of it still holds.
    ///
    /// # Errors
    /// fstat(2)'s.
    pub(super) fn is_unchanged(&self, file: &impl AsFd) -> io::Result<bool> {
        // Before the file is looked at: a clock that jumps forward must not make a change look old that
        // comes behind this look.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let stat = fstat(file)?;
        let version = Version {
            size: stat.st_size,
            modified: stamp(stat.st_mtime, stat.st_mtime_nsec),
            changed: stamp(stat.st_ctime, stat.st_ctime_nsec),
        };
        // A version that a further change might not differ from is not remembered.
        let remembered = is_settled(stat.st_ctime, now).then_some(version);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unchanged = *last == Some(version);
        *last = remembered;
        Ok(unchanged)
    }
}

/// Seconds and nanoseconds, which a kernel's structure and the C library's have in different types.
fn stamp(seconds: i64, nanoseconds: impl Into<i128>) -> i128 {
    i128::from(seconds) * 1_000_000_000 + nanoseconds.into()
}

/// Whether a change at `changed` (seconds of the host's clock) is old at `now`. A clock that was set back
/// makes it look as if it were to come: not old.
fn is_settled(changed: i64, now: Duration) -> bool {
    let changed = Duration::from_secs(u64::try_from(changed).unwrap_or(0));
    now.checked_sub(changed)
        .is_some_and(|age| age > COARSEST_STAMP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_old_only_by_a_clock_that_went_on_behind_it() {
        let at = |seconds| Duration::from_secs(seconds);
        assert!(is_settled(100, at(103)));
        assert!(!is_settled(100, at(102)), "within the coarsest stamp");
        assert!(!is_settled(100, at(40)), "the clock was set back");
        assert!(!is_settled(100, Duration::ZERO));
    }
}
