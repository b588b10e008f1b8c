//! Which kinds of requests are slow on the file system at hand.
//!
//! On a local file system nearly all metadata are there at once, and a thread's hop would cost more
//! than they do. On one behind a network, any may take milliseconds. So a kind of request whose last
//! one took long is done by a helper thread, until one was quick again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::fuse::Opcode;

/// Longer than this holds up a queue for more than a helper costs.
const LONG: Duration = Duration::from_millis(1);

/// A bit for each opcode that was slow.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    /// Whether the last request of this kind took long.
    pub(super) fn is_slow(&self, opcode: Opcode) -> bool {
        self.0.load(Ordering::Relaxed) & bit(opcode) != 0
    }

    /// A request of this kind has been carried out.
    pub(super) fn took(&self, opcode: Opcode, since: Instant) {
        let slow = since.elapsed() > LONG;
        if slow == self.is_slow(opcode) {
            return;
        }
        if slow {
            self.0.fetch_or(bit(opcode), Ordering::Relaxed);
        } else {
            self.0.fetch_and(!bit(opcode), Ordering::Relaxed);
        }
    }
}

/// Opcodes end at 53.
const fn bit(opcode: Opcode) -> u64 {
    1 << (opcode as u32 % u64::BITS)
}

/// Whether a request of this kind can be done by any thread at any time: it moves no data of the
/// guest's, keeps no order with others, and has an answer.
pub(super) const fn can_go_elsewhere(opcode: Opcode) -> bool {
    !opcode.is_silent()
        && !matches!(
            opcode,
            Opcode::Init
                | Opcode::Destroy
                | Opcode::Read
                | Opcode::Write
                | Opcode::Getlk
                | Opcode::Setlk
                | Opcode::Setlkw
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_slow_until_one_was_quick() {
        let pace = Pace::default();
        let now = Instant::now();
        let Some(long_ago) = now.checked_sub(Duration::from_millis(20)) else {
            return;
        };
        pace.took(Opcode::Lseek, long_ago);
        assert!(pace.is_slow(Opcode::Lseek) && !pace.is_slow(Opcode::Getattr));
        pace.took(Opcode::Lseek, Instant::now());
        assert!(!pace.is_slow(Opcode::Lseek));
    }

    #[test]
    fn each_kind_has_a_bit_of_its_own() {
        let bits: std::collections::HashSet<_> = Opcode::ALL.iter().map(|o| bit(*o)).collect();
        assert_eq!(bits.len(), Opcode::ALL.len());
    }
}
