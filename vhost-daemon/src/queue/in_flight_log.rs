//! Which requests are in flight, in memory that survives the process.
//!
//! A daemon that is killed leaves requests that the guest waits for. The next one finds them here
//! and does them once more, whatever order they were to complete in and whatever the front end
//! remembers. Doing them twice must do no harm: that holds for block devices, and for receive buffers
//! of a network device, which complete in whatever order frames need them.
//!
//! The order of stores makes every moment of death recoverable:
//!
//! | step | log |
//! | --- | --- |
//! | request taken | its entry becomes `Taken` with a sequence number |
//! | used entry written | `Completed` |
//! | before the used index is stored | the new index is noted as intended |
//! | after it | the batch's entries become free, the index is noted as reached |
//!
//! If the guest's used index equals the intended one, the index was stored: `Completed` entries are
//! done. If it equals the reached one, it was not: they are done once more.
//!
//! Requests are done again for the guest only that asked for them: the file begins anew with each boot of the
//! host, which no guest outlives, and a ring is the same one only in the same memory, as the file behind it
//! tells: a guest that boots puts its rings where the one before it had them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use thiserror::Error;

use super::RingIdentity;
use crate::boot_id::BootId;
use crate::file_lock::open_locked;
use crate::sys::SharedWords;

/// "RSinfl" and the layout's version.
const MAGIC: u64 = 0x5253_696e_666c_0002;
const HEADER_WORDS: usize = 8;
const QUEUE_WORDS: usize = 8;

/// A state file that cannot be used.
#[derive(Debug, Error)]
pub enum LogError {
    /// Another process has it locked.
    #[error("state file {0} is in use by another process")]
    InUse(PathBuf),
    /// Making, locking or mapping it failed.
    #[error("cannot use state file {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The state file of one device: a log for each queue.
#[derive(Debug)]
pub struct InFlightFile {
    /// Locked for as long as the log is used.
    _file: File,
    words: Arc<SharedWords>,
    queue_size: usize,
}

impl InFlightFile {
    /// Opens or makes the file for `queues` queues of at most `queue_size` entries. A file of
    /// another layout, or of another `boot`, is started anew: nothing in it could be matched.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn open(
        path: &Path,
        boot: BootId,
        queues: usize,
        queue_size: u16,
    ) -> Result<Self, LogError> {
        let queue_size = usize::from(queue_size);
        let len = HEADER_WORDS + queues * (QUEUE_WORDS + queue_size);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::WouldBlock => LogError::InUse(path.to_owned()),
            _ => LogError::Open {
                path: path.to_owned(),
                source,
            },
        };
        let file = open_locked(path).map_err(failed)?;
        let words = SharedWords::map(&file, 0, len).map_err(failed)?;
        let [high, low] = boot.words();
        words.lay_out(&[MAGIC, queues as u64, queue_size as u64, high, low]);
        Ok(Self {
            _file: file,
            words: Arc::new(words),
            queue_size,
        })
    }

    fn start(&self, index: usize) -> usize {
        HEADER_WORDS + index * (QUEUE_WORDS + self.queue_size)
    }

    /// The ring that queue `index` ran on last, and the device's note on it.
    pub fn noted(&self, index: usize) -> (RingIdentity, u64) {
        let load = |at| {
            let word = self.words.word(self.start(index) + at);
            word.load(Ordering::Acquire)
        };
        let ring = RingIdentity::from_words(std::array::from_fn(load));
        (ring, load(NOTE))
    }

    /// Keeps a word of the device's own with the ring that queue `index` runs on. On another ring it is zero.
    pub fn note(&self, index: usize, note: u64) {
        let word = self.words.word(self.start(index) + NOTE);
        word.store(note, Ordering::Release);
    }

    /// The log of queue `index`.
    pub fn queue(&self, index: usize) -> InFlightLog {
        InFlightLog {
            words: self.words.clone(),
            start: self.start(index),
            size: self.queue_size,
            sequence: 0,
            batch: Vec::new(),
        }
    }
}

/// What an entry says of the request with its head; the rest of the word is a sequence number.
const FREE: u64 = 0;
const TAKEN: u64 = 1;
const COMPLETED: u64 = 2;
const STATE: u64 = 3;

/// Words of a queue before its entries: the ring's identity, then the used index and the device's note.
const USED_INDEX: usize = RingIdentity::WORDS;
const NOTE: usize = USED_INDEX + 1;

/// The log of one queue, in the hands of the queue's thread.
#[derive(Debug)]
pub struct InFlightLog {
    words: Arc<SharedWords>,
    start: usize,
    /// Entries there are, at least as many as the ring has.
    size: usize,
    sequence: u64,
    /// Heads completed and not yet published.
    batch: Vec<u16>,
}

impl InFlightLog {
    /// Attaches the log to a ring that starts: returns the heads that an earlier process of ours
    /// left in flight on this very ring, oldest first, and marks them as taken.
    ///
    /// `size` is the ring's, `used` and `available` are its indexes as guest memory has them. If the ring is
    /// another one, or its indexes do not fit, there is nothing to recover.
    pub(super) fn attach(
        &mut self,
        ring: &RingIdentity,
        size: u16,
        used: u16,
        available: u16,
    ) -> Vec<u16> {
        let identity = ring.words();
        let same = (0..)
            .zip(&identity)
            .all(|(at, word)| self.load(at) == *word);
        let left = if same {
            self.left_over(used, available, size)
        } else {
            // Before the identity: it tells of the ring before.
            self.words
                .word(self.start + NOTE)
                .store(0, Ordering::Release);
            Vec::new()
        };
        self.batch.clear();
        // In this order a death in between loses nothing: entries that are left stay, the others
        // are free before the ring's identity and index change.
        for head in 0..self.size {
            let entry = self.entry(head);
            let sequence = entry.load(Ordering::Relaxed) >> 2;
            let is_left = left.iter().any(|kept| usize::from(*kept) == head);
            entry.store(
                if is_left { sequence << 2 | TAKEN } else { FREE },
                Ordering::Release,
            );
            self.sequence = self.sequence.max(sequence);
        }
        for (at, word) in (0..).zip(identity) {
            self.words
                .word(self.start + at)
                .store(word, Ordering::Release);
        }
        self.store_used(used, used);
        self.tell_loss();
        left
    }

    /// Says once that the state file is gone from under us.
    fn tell_loss(&self) {
        if self.words.is_newly_lost() {
            tracing::error!(
                "the state file was cut short: requests in flight are not remembered until a restart"
            );
        }
    }

    fn left_over(&self, used: u16, available: u16, size: u16) -> Vec<u16> {
        let indexes = self.load(USED_INDEX);
        let (reached, intended) = (indexes & 0xffff, indexes >> 16 & 0xffff);
        let was_published = u64::from(used) == intended;
        if !was_published && u64::from(used) != reached {
            return Vec::new();
        }
        let mut left: Vec<(u64, u16)> = (0..size)
            .filter_map(|head| {
                let entry = self.load(QUEUE_WORDS + usize::from(head));
                let is_left = match entry & STATE {
                    TAKEN => true,
                    // Nothing intended beyond what was reached: the batch was not being published.
                    COMPLETED => !was_published || intended == reached,
                    _ => false,
                };
                is_left.then_some((entry >> 2, head))
            })
            .collect();
        left.sort_unstable();
        let waiting = usize::from(available.wrapping_sub(used));
        if waiting < left.len() || waiting > usize::from(size) {
            return Vec::new();
        }
        left.into_iter().map(|(_, head)| head).collect()
    }

    /// A request was taken.
    pub(super) fn taken(&mut self, head: u16) {
        self.sequence += 1;
        self.entry(usize::from(head))
            .store(self.sequence << 2 | TAKEN, Ordering::Release);
    }

    /// A request was given back untouched.
    pub(super) fn given_back(&mut self, head: u16) {
        self.entry(usize::from(head)).store(FREE, Ordering::Release);
    }

    /// A request's used entry was written.
    pub(super) fn completed(&mut self, head: u16) {
        let entry = self.entry(usize::from(head));
        let sequence = entry.load(Ordering::Relaxed) & !STATE;
        entry.store(sequence | COMPLETED, Ordering::Release);
        self.batch.push(head);
    }

    /// The used index is about to go from `reached` to `intended`.
    pub(super) fn publishing(&self, reached: u16, intended: u16) {
        self.store_used(reached, intended);
    }

    /// The used index is `reached`.
    pub(super) fn published(&mut self, reached: u16) {
        let mut batch = std::mem::take(&mut self.batch);
        for head in batch.drain(..) {
            self.entry(usize::from(head)).store(FREE, Ordering::Release);
        }
        // Kept: it has the length that batches have.
        self.batch = batch;
        self.store_used(reached, reached);
        self.tell_loss();
    }

    fn entry(&self, head: usize) -> &std::sync::atomic::AtomicU64 {
        self.words.word(self.start + QUEUE_WORDS + head)
    }

    fn load(&self, at: usize) -> u64 {
        self.words.word(self.start + at).load(Ordering::Acquire)
    }

    fn store_used(&self, reached: u16, intended: u16) {
        let indexes = u64::from(reached) | u64::from(intended) << 16;
        self.words
            .word(self.start + USED_INDEX)
            .store(indexes, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
