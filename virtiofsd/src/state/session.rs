//! What a guest's kernel and the daemon agreed on, about which directory, and since which boot of the host.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;

use vhost_daemon::boot_id::BootId;
use vhost_daemon::sys::SharedWords;

use crate::fuse::Features;

/// "RSnode" and the layout's version.
const MAGIC: u64 = 0x5253_6e6f_6465_0001;
/// The page before the units.
const WORDS: usize = 512;

const INITIALISED: usize = 1;
const FEATURES: usize = 2;
/// How many processes there were before this one.
const EPOCH: usize = 3;
const ROOT: usize = 4;
const BOOT: usize = 8;

/// Each process numbers its new nodes and handles from a multiple of this on: numbers are not used again
/// that a guest may still know.
const NUMBERS: u64 = 1 << 40;
/// No directory has seen so many processes. Numbers stay below the half of what there are, whatever the file says.
const MOST_PROCESSES: u64 = 1 << 22;

/// What tells a shared directory from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RootIdentity {
    pub(crate) inode: u64,
    /// When it was made: seconds and nanoseconds.
    pub(crate) born: Option<(i64, u32)>,
}

impl RootIdentity {
    fn words(&self) -> [u64; 4] {
        let (seconds, nanoseconds) = self.born.unwrap_or_default();
        let known = u64::from(self.born.is_some());
        [
            self.inode,
            seconds.cast_unsigned(),
            nanoseconds.into(),
            known,
        ]
    }
}

/// The first page of the file of nodes.
#[derive(Debug)]
pub(crate) struct Session {
    words: SharedWords,
    boot: BootId,
}

impl Session {
    /// # Errors
    /// ftruncate(2)'s, fallocate(2)'s and mmap(2)'s.
    pub(super) fn open(file: &File, boot: BootId) -> io::Result<Self> {
        let words = SharedWords::map(file, 0, WORDS)?;
        if words.word(EPOCH).load(Ordering::Acquire) >= MOST_PROCESSES {
            words.word(0).store(0, Ordering::Release);
            words.word(EPOCH).store(0, Ordering::Release);
        }
        // Without the number: a new file, or one in which not all could be remembered.
        if words.word(0).load(Ordering::Acquire) != MAGIC {
            words.word(INITIALISED).store(0, Ordering::Release);
            words.word(0).store(MAGIC, Ordering::Release);
        }
        words.word(EPOCH).fetch_add(1, Ordering::AcqRel);
        Ok(Self { words, boot })
    }

    /// The first number for this process' nodes and handles.
    pub(crate) fn first_number(&self) -> u64 {
        self.words
            .word(EPOCH)
            .load(Ordering::Relaxed)
            .saturating_mul(NUMBERS)
    }

    /// What was agreed on, if anything is.
    pub(crate) fn features(&self) -> Option<Features> {
        let initialised = self.words.word(INITIALISED).load(Ordering::Acquire) != 0;
        let features = self.words.word(FEATURES).load(Ordering::Relaxed);
        initialised.then(|| Features::from_bits(features))
    }

    /// Whether it is about the directory `root`.
    pub(super) fn is_of(&self, root: &RootIdentity) -> bool {
        (ROOT..)
            .zip(root.words())
            .all(|(at, word)| self.words.word(at).load(Ordering::Acquire) == word)
    }

    /// Whether what was agreed on was so with a guest that may still be there.
    pub(super) fn is_of_this_boot(&self) -> bool {
        (BOOT..)
            .zip(self.boot.words())
            .all(|(at, word)| self.words.word(at).load(Ordering::Acquire) == word)
    }

    /// About directory `root`, with nothing agreed on yet.
    pub(super) fn begin_anew(&self, root: &RootIdentity) {
        self.end();
        let boot = (BOOT..).zip(self.boot.words());
        for (at, word) in (ROOT..).zip(root.words()).chain(boot) {
            self.words.word(at).store(word, Ordering::Release);
        }
    }

    /// Nothing is agreed on any more.
    pub(super) fn end(&self) {
        self.words.word(INITIALISED).store(0, Ordering::Release);
    }

    /// That is agreed on now.
    pub(crate) fn begin(&self, features: Features) {
        let word = self.words.word(FEATURES);
        word.store(features.bits(), Ordering::Relaxed);
        self.words.word(INITIALISED).store(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_never_come_back_to_the_first_ones() {
        let file = tempfile::tempfile().unwrap();
        let session = Session::open(&file, BootId::current()).unwrap();
        session.begin(Features::WRITEBACK_CACHE);
        for (processes, first) in [(7, 8), (MOST_PROCESSES - 1, MOST_PROCESSES)] {
            session
                .words
                .word(EPOCH)
                .store(processes, Ordering::Relaxed);
            let next = Session::open(&file, BootId::current()).unwrap();
            assert_eq!(next.first_number(), first * NUMBERS);
            assert!(next.features().is_some());
        }
        for nonsense in [MOST_PROCESSES, 1 << 24, u64::MAX] {
            session.begin(Features::WRITEBACK_CACHE);
            session.words.word(EPOCH).store(nonsense, Ordering::Relaxed);
            let next = Session::open(&file, BootId::current()).unwrap();
            assert_eq!(next.first_number(), NUMBERS);
            assert!(
                next.features().is_none(),
                "what such a file says is not gone by"
            );
        }
    }
}
