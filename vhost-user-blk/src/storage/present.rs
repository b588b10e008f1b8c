//! Which units of a file are known to have memory of their own.

use std::sync::atomic::{AtomicU64, Ordering};

use vhost_daemon::sys::zeroed_words;

/// A unit in bytes: no page of a host is smaller.
pub(super) const UNIT: u64 = 4096;

const BITS: u64 = u64::BITS as u64;

/// A bit for each unit of a part of a file: set if the file system holds memory for it. A unit without
/// its bit may or may not have memory.
///
/// The bits order nothing: file contents are the same through a mapping and through system calls, so
/// that a bit seen late costs a page or a system call.
#[derive(Debug)]
pub(super) struct Present(Box<[AtomicU64]>);

impl Present {
    /// Nothing is known of `len` bytes, counted from the part's start as everywhere here.
    pub(super) fn unknown(len: u64) -> Self {
        let words = len.div_ceil(UNIT * BITS);
        Self(zeroed_words(usize::try_from(words).unwrap_or(usize::MAX)))
    }

    /// Whether all units that the range touches are known to be there.
    pub(super) fn has(&self, offset: u64, len: u64) -> bool {
        let end = (offset + len).div_ceil(UNIT);
        self.words(offset / UNIT, end)
            .all(|(word, mask)| word.load(Ordering::Relaxed) & mask == mask)
    }

    /// All units that the range touches are there: something was written to each.
    pub(super) fn written(&self, offset: u64, len: u64) {
        let end = (offset + len).div_ceil(UNIT);
        for (word, mask) in self.words(offset / UNIT, end) {
            // Most writes change nothing: do not take the line from other queues for those.
            if word.load(Ordering::Relaxed) & mask != mask {
                word.fetch_or(mask, Ordering::Relaxed);
            }
        }
    }

    /// The units wholly inside the range are there; of those at its edges nothing is learnt.
    pub(super) fn found(&self, offset: u64, len: u64) {
        for (word, mask) in self.whole_units(offset, len) {
            word.fetch_or(mask, Ordering::Relaxed);
        }
    }

    /// The units wholly inside the range may be given back; those at its edges stay as they are.
    pub(super) fn forget(&self, offset: u64, len: u64) {
        for (word, mask) in self.whole_units(offset, len) {
            word.fetch_and(!mask, Ordering::Relaxed);
        }
    }

    fn whole_units(&self, offset: u64, len: u64) -> impl Iterator<Item = (&AtomicU64, u64)> {
        self.words(offset.div_ceil(UNIT), (offset + len) / UNIT)
    }

    /// The words that hold the bits from `first` up to `end`, each with the mask of those bits in it.
    fn words(&self, first: u64, end: u64) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let mut bit = first;
        std::iter::from_fn(move || {
            if bit >= end {
                return None;
            }
            let word = self.0.get(usize::try_from(bit / BITS).ok()?)?;
            let count = (BITS - bit % BITS).min(end - bit);
            let mask = u64::MAX >> (BITS - count) << (bit % BITS);
            bit += count;
            Some((word, mask))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNITS: u64 = 300;

    #[derive(Clone, Copy, Debug)]
    enum Change {
        Written,
        Found,
        Forget,
    }

    fn changes() -> impl Strategy<Value = Vec<(Change, u64, u64)>> {
        let change = prop_oneof![
            Just(Change::Written),
            Just(Change::Found),
            Just(Change::Forget)
        ];
        let range = (0..UNITS * 8).prop_flat_map(|from| (Just(from), 1..=UNITS * 8 - from));
        let one = (change, range).prop_map(|(change, (from, len))| (change, from * 512, len * 512));
        prop::collection::vec(one, 0..40)
    }

    proptest! {
        #[test]
        fn bits_are_those_of_a_plain_table(changes in changes(), at in 0..UNITS * 8, len in 1..64_u64) {
            let present = Present::unknown(UNITS * UNIT);
            let mut plain = vec![false; 300];
            for (change, offset, len) in changes {
                for (unit, bit) in (0..).zip(&mut plain) {
                    let (start, end) = (unit * UNIT, (unit + 1) * UNIT);
                    let touched = start < offset + len && offset < end;
                    let inside = offset <= start && end <= offset + len;
                    match change {
                        Change::Written if touched => *bit = true,
                        Change::Found if inside => *bit = true,
                        Change::Forget if inside => *bit = false,
                        _ => {}
                    }
                }
                match change {
                    Change::Written => present.written(offset, len),
                    Change::Found => present.found(offset, len),
                    Change::Forget => present.forget(offset, len),
                }
            }
            let (offset, len) = (at * 512, (len * 512).min(UNITS * UNIT - at * 512));
            let (first, end) = (offset / UNIT, (offset + len).div_ceil(UNIT));
            let all = (first..end).all(|unit| plain[usize::try_from(unit).unwrap_or(0)]);
            prop_assert_eq!(present.has(offset, len), all);
        }
    }
}
