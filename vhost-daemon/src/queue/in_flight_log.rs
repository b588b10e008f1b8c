//! Which requests are in flight, in memory that survives the process.
//!
//! A daemon that is killed leaves requests that the guest waits for. The next one finds them here
//! and does them once more, whatever order they were to complete in and whatever the front end
//! remembers. Doing them twice must do no harm: that holds for block devices.
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

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use thiserror::Error;
use virtio_queue::QueueState;

use crate::sys::SharedWords;

/// "RSinfl" and the layout's version.
const MAGIC: u64 = 0x5253_696e_666c_0001;
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
    words: Arc<SharedWords>,
    queue_size: usize,
}

impl InFlightFile {
    /// Opens or makes the file for `queues` queues of at most `queue_size` entries. A file of
    /// another layout is started anew: nothing in it could be matched.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn open(path: &Path, queues: usize, queue_size: u16) -> Result<Self, LogError> {
        let queue_size = usize::from(queue_size);
        let len = HEADER_WORDS + queues * (QUEUE_WORDS + queue_size);
        let words = SharedWords::open(path, len).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => LogError::InUse(path.to_owned()),
            _ => LogError::Open {
                path: path.to_owned(),
                source,
            },
        })?;
        let layout = [MAGIC, queues as u64, queue_size as u64];
        let known = |(at, word): (usize, &u64)| words.word(at).load(Ordering::Acquire) == *word;
        if !layout.iter().enumerate().all(known) {
            (0..len).for_each(|at| words.word(at).store(0, Ordering::Relaxed));
            for (at, word) in layout.iter().enumerate().rev() {
                words.word(at).store(*word, Ordering::Release);
            }
        }
        Ok(Self {
            words: Arc::new(words),
            queue_size,
        })
    }

    /// The log of queue `index`.
    pub fn queue(&self, index: usize) -> InFlightLog {
        let start = HEADER_WORDS + index * (QUEUE_WORDS + self.queue_size);
        InFlightLog {
            words: self.words.clone(),
            start,
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

/// Words of a queue before its entries: the ring's identity, then the used index.
const USED_INDEX: usize = 4;

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
    /// `used` and `available` are the ring's indexes as guest memory has them. If the ring is
    /// another one, or its indexes do not fit, there is nothing to recover.
    pub(super) fn attach(&mut self, ring: &QueueState, used: u16, available: u16) -> Vec<u16> {
        let identity = [
            ring.desc_table,
            ring.avail_ring,
            ring.used_ring,
            u64::from(ring.size),
        ];
        let same = (0..)
            .zip(&identity)
            .all(|(at, word)| self.load(at) == *word);
        let left = if same {
            self.left_over(used, available, ring.size)
        } else {
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
        left
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
        for head in std::mem::take(&mut self.batch) {
            self.entry(usize::from(head)).store(FREE, Ordering::Release);
        }
        self.store_used(reached, reached);
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
mod tests {
    use super::*;

    fn ring() -> QueueState {
        QueueState {
            max_size: 8,
            next_avail: 0,
            next_used: 0,
            event_idx_enabled: false,
            size: 8,
            ready: true,
            desc_table: 0x1000,
            avail_ring: 0x2000,
            used_ring: 0x3000,
        }
    }

    /// A process dies: its log is opened again by the next one.
    struct Deaths {
        path: PathBuf,
        _dir: tempfile::TempDir,
    }

    impl Deaths {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self {
                path: dir.path().join("log"),
                _dir: dir,
            }
        }

        fn open(&self) -> InFlightLog {
            InFlightFile::open(&self.path, 2, 8).unwrap().queue(1)
        }
    }

    #[test]
    fn requests_left_in_flight_are_found_oldest_first() {
        let deaths = Deaths::new();
        let mut log = deaths.open();
        assert!(log.attach(&ring(), 0, 0).is_empty());
        for head in [5, 2, 7] {
            log.taken(head);
        }
        log.completed(2);
        log.publishing(0, 1);
        log.published(1);
        drop(log);
        assert_eq!(deaths.open().attach(&ring(), 1, 3), [5, 7]);
        // Recovering does not use them up: another death finds them again.
        assert_eq!(deaths.open().attach(&ring(), 1, 3), [5, 7]);
    }

    #[test]
    fn the_guests_index_tells_whether_a_batch_was_published() {
        for (used, left) in [(0, vec![4, 5]), (1, vec![5])] {
            let deaths = Deaths::new();
            let mut log = deaths.open();
            log.attach(&ring(), 0, 0);
            log.taken(4);
            log.taken(5);
            log.completed(4);
            log.publishing(0, 1);
            drop(log);
            assert_eq!(
                deaths.open().attach(&ring(), used, 2),
                left,
                "used index {used}"
            );
        }
    }

    #[test]
    fn completed_but_never_offered_is_done_again() {
        let deaths = Deaths::new();
        let mut log = deaths.open();
        log.attach(&ring(), 9, 9);
        log.taken(1);
        log.completed(1);
        drop(log);
        assert_eq!(deaths.open().attach(&ring(), 9, 10), [1]);
    }

    #[test]
    fn another_ring_or_another_guest_recovers_nothing() {
        let moved = QueueState {
            used_ring: 0x4000,
            ..ring()
        };
        for (ring_now, used, available) in [(moved, 3, 4), (ring(), 7, 8), (ring(), 3, 3)] {
            let deaths = Deaths::new();
            let mut log = deaths.open();
            log.attach(&ring(), 3, 3);
            log.taken(1);
            drop(log);
            assert!(deaths.open().attach(&ring_now, used, available).is_empty());
        }
    }

    #[test]
    fn a_log_has_one_user() {
        let deaths = Deaths::new();
        let _first = InFlightFile::open(&deaths.path, 2, 8).unwrap();
        let second = InFlightFile::open(&deaths.path, 2, 8);
        assert!(matches!(second, Err(LogError::InUse(_))));
    }
}
