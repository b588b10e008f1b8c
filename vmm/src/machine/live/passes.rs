//! When memory that is being written was copied often enough.

use std::time::Duration;

use super::CopiedInfo;

/// Bytes that are copied quicker than another pass would be: a few milliseconds of the guest's pause.
const LITTLE: u64 = 4 << 20;
/// Passes at most, in each approach to a pause.
const MOST: u32 = 12;
/// Passes that may leave no less than the one before, before it is seen that the guest writes faster.
const PATIENCE: u32 = 2;

/// Counts passes. Ends, however fast the guest writes.
#[derive(Debug, Default)]
pub(super) struct Passes {
    /// Since the last pause.
    made: u32,
    /// What the last pass had to copy.
    before: Option<u64>,
    /// Passes that had no less to copy.
    in_vain: u32,
    all: u32,
    again: u64,
}

impl Passes {
    /// Whether so many bytes are worth another pass.
    pub(super) fn another(&mut self, bytes: u64) -> bool {
        if self.before.is_some_and(|before| bytes >= before) {
            self.in_vain += 1;
        }
        self.before = Some(bytes);
        let worth = bytes > LITTLE && self.made < MOST && self.in_vain < PATIENCE;
        if worth {
            self.made += 1;
            self.all += 1;
            self.again += bytes;
        }
        worth
    }

    /// After a pause in which a daemon was missing.
    pub(super) fn begin_again(&mut self) {
        (self.made, self.before, self.in_vain) = (0, None, 0);
    }

    /// All that was done; the first pass, of all memory, counts too.
    pub(super) fn copied(&self, last: u64, pause: Duration) -> CopiedInfo {
        CopiedInfo {
            passes: self.all + 1,
            again: self.again + last,
            last,
            pause: u64::try_from(pause.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(left: impl IntoIterator<Item = u64>) -> u32 {
        let mut passes = Passes::default();
        let mut left = left.into_iter();
        while passes.another(left.next().unwrap_or(0)) {}
        passes.all
    }

    #[test]
    fn an_idle_guest_is_paused_at_once_and_a_busy_one_soon() {
        assert_eq!(made([0]), 0);
        assert_eq!(made([LITTLE]), 0);
        let halves = (0..).map(|pass| (1 << 30) >> pass);
        assert_eq!(made(halves), 8, "1 GiB, 512 MiB, ... 8 MiB");
        assert_eq!(made(std::iter::repeat(1 << 30)), PATIENCE);
        let slowly = (0..).map(|pass| (1 << 40) - pass);
        assert_eq!(made(slowly), MOST);
    }

    proptest! {
        #[test]
        fn it_ends_whatever_the_guest_writes(left: Vec<u64>, last: u64) {
            let passes = made(left.into_iter().chain(std::iter::repeat(last)).map(|it| it >> 8));
            prop_assert!(passes <= MOST);
        }

        #[test]
        fn what_is_copied_is_counted(left in prop::collection::vec(0..1_u64 << 40, 0..20)) {
            let mut passes = Passes::default();
            let mut sum = 0;
            for bytes in left {
                if passes.another(bytes) {
                    sum += bytes;
                } else {
                    passes.begin_again();
                }
            }
            let copied = passes.copied(7, Duration::from_millis(2));
            prop_assert_eq!((copied.again, copied.last, copied.pause), (sum + 7, 7, 2000));
        }
    }
}
