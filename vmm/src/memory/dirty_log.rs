//! Which pages of the guest's memory were written, for whoever copies it while it is used.
//!
//! A bit for each page of 4096 bytes of the guest's address space, in a file that daemons map too
//! (vhost-user, "Migration"). Whoever writes marks *afterwards*; whoever copies takes the mark *before*: what
//! is written meanwhile is marked, and copied again.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// `VHOST_LOG_PAGE`: bytes that a bit stands for, whatever the pages' size.
const PAGE: u64 = 4096;
const WORD: u64 = u64::BITS as u64;

/// The log. Daemons write it too, so its bits are believed only where there is memory.
#[derive(Debug)]
pub struct DirtyLog {
    file: File,
    mapped: MmapRegion,
    /// Pages that have a bit.
    pages: u64,
    /// Somebody wrote without marking.
    incomplete: AtomicBool,
}

impl DirtyLog {
    /// A log of the address space up to `end`, with no page marked.
    pub(super) fn new(end: u64) -> io::Result<Self> {
        let pages = end.div_ceil(PAGE);
        // Whole pages of it are mapped, here and there.
        let len = (pages.div_ceil(WORD) * 8).next_multiple_of(PAGE);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create("dirty-log", flags)?);
        file.set_len(len)?;
        // A daemon that cut it short would end us.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let range = FileOffset::new(file.try_clone()?, 0);
        Ok(Self {
            mapped: MmapRegion::from_file(range, len).map_err(io::Error::other)?,
            file,
            pages,
            incomplete: AtomicBool::new(false),
        })
    }

    /// What daemons map.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.mapped.size() as u64
    }

    /// A part of the address space was written.
    pub fn mark(&self, address: u64, len: u64) {
        if len == 0 {
            return;
        }
        let last = address.saturating_add(len - 1) / PAGE;
        self.mark_pages(address / PAGE..last.saturating_add(1).min(self.pages));
    }

    /// Any part may have been written.
    pub fn mark_all(&self) {
        self.mark_pages(0..self.pages);
    }

    fn mark_pages(&self, pages: Range<u64>) {
        for word in words(&pages) {
            self.add(word, mask(word, &pages));
        }
    }

    /// Adds a bitmap of pages from `address` on, as KVM gives it.
    pub(crate) fn mark_bitmap(&self, address: u64, bitmap: &[u64]) {
        let first = address / PAGE;
        let shift = first % WORD;
        for (word, bits) in (first / WORD..).zip(bitmap) {
            self.add(word, bits << shift);
            if shift > 0 {
                self.add(word + 1, bits >> (WORD - shift));
            }
        }
    }

    /// Somebody writes who does not mark: a copy by this log would be wrong.
    pub fn give_up(&self) {
        self.incomplete.store(true, Ordering::Release);
    }

    /// Whether every write was marked.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.incomplete.load(Ordering::Acquire)
    }

    /// Bytes of marked pages in a part of the address space of whole pages.
    pub(super) fn count(&self, part: &Range<u64>) -> u64 {
        let pages = pages(part);
        let marked = |word| {
            let bits = self.word(word).map_or(0, |it| it.load(Ordering::Acquire));
            u64::from((u64::from_le(bits) & mask(word, &pages)).count_ones())
        };
        words(&pages).map(marked).sum::<u64>() * PAGE
    }

    /// Takes the marks of a part of the address space of whole pages, and calls `each` with every run of
    /// marked ones, afterwards and in order.
    pub(crate) fn take(
        &self,
        part: &Range<u64>,
        mut each: impl FnMut(Range<u64>) -> io::Result<()>,
    ) -> io::Result<()> {
        let pages = pages(part);
        let mut run = 0..0;
        for word in words(&pages) {
            let bits = self.word(word).map_or(0, |it| it.swap(0, Ordering::AcqRel));
            let mut bits = u64::from_le(bits) & mask(word, &pages);
            while bits != 0 {
                let first = u64::from(bits.trailing_zeros());
                let marked = u64::from((bits >> first).trailing_ones());
                bits &= !mask(0, &(first..first + marked));
                let found = word * WORD + first..word * WORD + first + marked;
                if found.start == run.end {
                    run.end = found.end;
                } else {
                    let before = std::mem::replace(&mut run, found);
                    give(before, &mut each)?;
                }
            }
        }
        give(run, &mut each)
    }

    fn add(&self, word: u64, bits: u64) {
        if let Some(place) = self.word(word).filter(|_| bits != 0) {
            place.fetch_or(bits.to_le(), Ordering::AcqRel);
        }
    }

    fn word(&self, word: u64) -> Option<&AtomicU64> {
        let at = usize::try_from(word.checked_mul(8)?).ok()?;
        self.mapped.get_atomic_ref(at).ok()
    }
}

fn give(run: Range<u64>, each: &mut impl FnMut(Range<u64>) -> io::Result<()>) -> io::Result<()> {
    if run.is_empty() {
        return Ok(());
    }
    each(run.start * PAGE..run.end * PAGE)
}

fn pages(part: &Range<u64>) -> Range<u64> {
    part.start / PAGE..part.end.div_ceil(PAGE)
}

/// The words that have bits of these pages.
fn words(pages: &Range<u64>) -> Range<u64> {
    pages.start / WORD..pages.end.div_ceil(WORD)
}

/// The bits of a word that are of these pages.
fn mask(word: u64, pages: &Range<u64>) -> u64 {
    let first = word * WORD;
    let from = pages.start.saturating_sub(first).min(WORD);
    let to = pages.end.saturating_sub(first).min(WORD);
    let below = |bit: u64| {
        if bit == WORD {
            u64::MAX
        } else {
            (1 << bit) - 1
        }
    };
    below(to) & !below(from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Addresses of marked pages.
    fn taken(log: &DirtyLog, part: Range<u64>) -> Vec<u64> {
        let mut runs = Vec::new();
        log.take(&part, |run| {
            runs.push(run);
            Ok(())
        })
        .unwrap();
        for pair in runs.windows(2) {
            assert!(pair[0].end < pair[1].start, "{runs:x?}");
        }
        let pages = |run: Range<u64>| run.step_by(4096);
        runs.into_iter().flat_map(pages).collect()
    }

    const END: u64 = 300 * PAGE;

    #[test]
    fn a_log_is_as_daemons_know_it() {
        let log = DirtyLog::new(END).unwrap();
        assert_eq!(log.file().metadata().unwrap().len(), log.bytes());
        log.mark(9 * PAGE + 5, 1);
        log.mark(u64::MAX, 100);
        log.mark(0, 0);
        let mut bytes = vec![0; 8];
        std::os::unix::fs::FileExt::read_exact_at(log.file(), &mut bytes, 0).unwrap();
        assert_eq!(bytes, [0, 1 << 1, 0, 0, 0, 0, 0, 0]);
        assert!(log.file().set_len(0).is_err());
        log.mark_all();
        assert_eq!(log.count(&(0..END)), END);
        assert_eq!(taken(&log, 0..END).len(), 300);
        assert!(taken(&log, 0..END).is_empty());
        assert!(log.is_complete());
        log.give_up();
        assert!(!log.is_complete());
    }

    #[test]
    fn an_error_ends_the_taking() {
        let log = DirtyLog::new(END).unwrap();
        log.mark_all();
        let refused = log.take(&(0..END), |_| Err(io::ErrorKind::StorageFull.into()));
        assert!(refused.is_err());
    }

    proptest! {
        #[test]
        fn what_was_marked_is_taken_once_and_only_where_asked(
            marks in prop::collection::vec((0..END + 9 * PAGE, 0..5 * PAGE), 0..40),
            from in 0..300_u64,
            len in 0..300_u64,
        ) {
            let log = DirtyLog::new(END).unwrap();
            let mut expected = BTreeSet::new();
            for (address, len) in marks {
                log.mark(address, len);
                expected.extend((address..address + len).map(|it| it / PAGE * PAGE));
            }
            expected.retain(|page| *page < END);
            let part = from * PAGE..(from + len).min(300) * PAGE;
            let inside: Vec<u64> = expected.iter().copied().filter(|it| part.contains(it)).collect();
            prop_assert_eq!(log.count(&part), inside.len() as u64 * PAGE);
            prop_assert_eq!(taken(&log, part.clone()), inside);
            prop_assert_eq!(taken(&log, part), Vec::<u64>::new());
        }

        #[test]
        fn a_bitmap_of_kvm_lands_where_its_memory_is(
            bitmap in prop::collection::vec(any::<u64>(), 0..4),
            first in 0..200_u64,
        ) {
            let log = DirtyLog::new(1000 * PAGE).unwrap();
            log.mark_bitmap(first * PAGE, &bitmap);
            let expected: Vec<u64> = (0..bitmap.len() as u64 * 64)
                .filter(|page| bitmap[usize::try_from(page / 64).unwrap()] >> (page % 64) & 1 == 1)
                .map(|page| (first + page) * PAGE)
                .collect();
            prop_assert_eq!(taken(&log, 0..1000 * PAGE), expected);
        }
    }
}
