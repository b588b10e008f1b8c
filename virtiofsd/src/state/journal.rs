//! What became of the requests that must not happen twice.
//!
//! A process that dies leaves requests that the guest still waits for, and the next one serves them again.
//! Most may be done twice. Of the others the journal knows more, in memory that survives:
//!
//! | a request was | the next process |
//! | --- | --- |
//! | not begun | serves it |
//! | begun | finds out by the evidence noted before whether it was done |
//! | done | gives the same answer |
//!
//! A place in the journal is used again when at least [`SLOTS`] / 2 other requests have been there: by
//! then the guest has been told.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost_daemon::sys::SharedWords;

use crate::fuse::Opcode;

/// "RSjrnl" and the layout's version.
const MAGIC: u64 = 0x5253_6a72_6e6c_0001;
const HEADER_WORDS: usize = 8;
/// No journal has counted so many requests.
const MOST_SEQUENCE: u64 = 1 << 63;
/// Twice what a queue can have in flight.
const SLOTS: u16 = 2048;
const SLOT_WORDS: usize = 32;

/// Words of a slot.
const STATE: usize = 0;
const UNIQUE: usize = 1;
const SEQUENCE: usize = 2;
const LENGTH: usize = 3;
const EVIDENCE: usize = 4;
const BODY: usize = 12;
const BODY_WORDS: usize = SLOT_WORDS - BODY;

/// In [`STATE`]; the opcode is above, an errno in the upper half.
const BEGUN: u64 = 1;
const DONE: u64 = 2;

/// What was so before a request was begun.
pub type Evidence = [u64; BODY - EVIDENCE];

/// What an earlier process left about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// It may have been done or not.
    Begun(Evidence),
    /// It was done, with this reply: an errno, or 0 and the body.
    Done(i32, Vec<u8>),
}

/// The journal of all queues.
#[derive(Debug)]
pub struct Journals {
    words: SharedWords,
    queues: Vec<Queue>,
}

#[derive(Debug)]
struct Queue {
    /// Slots that no request has, the one used longest ago first.
    free: Mutex<VecDeque<u16>>,
    /// Slots by what an earlier process left in them.
    left: Mutex<HashMap<u64, u16>>,
    /// There are some.
    any_left: AtomicBool,
    sequence: AtomicU64,
}

/// A queue's journal.
#[derive(Clone, Debug)]
pub struct Journal {
    journals: Arc<Journals>,
    queue: usize,
}

/// A request's place in the journal.
#[derive(Debug)]
pub struct Entry {
    journal: Journal,
    slot: u16,
    unique: u64,
    opcode: Opcode,
    recalled: Option<Recalled>,
}

impl Journals {
    /// The journal in `file`, for `queues` queues. One of another layout is started anew.
    ///
    /// # Errors
    /// ftruncate(2)'s, fallocate(2)'s and mmap(2)'s.
    pub fn open(file: &File, queues: usize) -> io::Result<Arc<Self>> {
        let len = HEADER_WORDS + queues * usize::from(SLOTS) * SLOT_WORDS;
        let words = SharedWords::map(file, 0, len)?;
        words.lay_out(&[MAGIC, queues as u64]);
        let mut journals = Self {
            words,
            queues: Vec::new(),
        };
        for queue in 0..queues {
            let read = journals.read(queue);
            journals.queues.push(read);
        }
        Ok(Arc::new(journals))
    }

    /// The journal of queue `queue`.
    pub fn queue(self: &Arc<Self>, queue: usize) -> Journal {
        Journal {
            journals: self.clone(),
            queue,
        }
    }

    /// Nothing that was begun before matters any more: the guest starts afresh, and counts its requests
    /// anew.
    pub fn clear(&self) {
        for (queue, slots) in self.queues.iter().enumerate() {
            slots.any_left.store(false, Ordering::Relaxed);
            lock(&slots.left).clear();
            for slot in 0..SLOTS {
                self.word(queue, slot, STATE).store(0, Ordering::Release);
            }
        }
    }

    /// What was done longest ago is the first to be forgotten, what was not done the last.
    fn read(&self, queue: usize) -> Queue {
        let load = |slot, at| self.word(queue, slot, at).load(Ordering::Acquire);
        let mut slots: Vec<(u64, u64, u16)> = (0..SLOTS)
            .map(|slot| {
                let state = load(slot, STATE) & 0xff;
                let begun = u64::from(state == BEGUN);
                let sequence = load(slot, SEQUENCE);
                // Nobody counts so far: a file that was written to by others.
                let counted = state != 0 && sequence < MOST_SEQUENCE;
                let sequence = if counted { sequence } else { 0 };
                (begun, sequence, slot)
            })
            .collect();
        slots.sort_unstable();
        let left: HashMap<u64, u16> = slots
            .iter()
            .filter(|(_, _, slot)| load(*slot, STATE) != 0)
            .map(|(_, _, slot)| (load(*slot, UNIQUE), *slot))
            .collect();
        let last = slots.iter().map(|(_, sequence, _)| *sequence).max();
        Queue {
            free: Mutex::new(slots.into_iter().map(|(_, _, slot)| slot).collect()),
            any_left: AtomicBool::new(!left.is_empty()),
            left: Mutex::new(left),
            sequence: AtomicU64::new(last.unwrap_or(0) + 1),
        }
    }

    fn recall(&self, queue: usize, slot: u16, opcode: Opcode) -> Option<Recalled> {
        let load = |at| self.word(queue, slot, at).load(Ordering::Acquire);
        let state = load(STATE);
        if (state >> 8 & 0xff_ffff) != u64::from(opcode as u32) {
            return None;
        }
        match state & 0xff {
            BEGUN => Some(Recalled::Begun(std::array::from_fn(|at| {
                load(EVIDENCE + at)
            }))),
            DONE => {
                let len = usize::try_from(load(LENGTH))
                    .unwrap_or(0)
                    .min(BODY_WORDS * 8);
                let words = (0..len.div_ceil(8)).flat_map(|at| load(BODY + at).to_le_bytes());
                let error = (state >> 32) as u32;
                Some(Recalled::Done(
                    error.cast_signed(),
                    words.take(len).collect(),
                ))
            }
            _ => None,
        }
    }

    fn word(&self, queue: usize, slot: u16, at: usize) -> &AtomicU64 {
        let slot = queue * usize::from(SLOTS) + usize::from(slot);
        self.words.word(HEADER_WORDS + slot * SLOT_WORDS + at)
    }
}

impl Journal {
    /// A place for request `unique`, and what an earlier process left about it. `None` where there is no
    /// place, which does not happen with the queue sizes that are offered.
    pub fn enter(&self, unique: u64, opcode: Opcode) -> Option<Arc<Entry>> {
        let queue = &self.journals.queues[self.queue];
        let entry = |slot, recalled| {
            Arc::new(Entry {
                journal: self.clone(),
                slot,
                unique,
                opcode,
                recalled,
            })
        };
        if queue.any_left.load(Ordering::Relaxed) {
            let mut left = lock(&queue.left);
            let mut free = lock(&queue.free);
            if let Some(slot) = left.remove(&unique) {
                free.retain(|other| *other != slot);
                let recalled = self.journals.recall(self.queue, slot, opcode);
                return Some(entry(slot, recalled));
            }
            let slot = free.pop_front()?;
            // A number stays in a slot that was withdrawn, and its request may have got another one.
            let before = self.journals.word(self.queue, slot, UNIQUE);
            let before = before.load(Ordering::Relaxed);
            if left.get(&before) == Some(&slot) {
                left.remove(&before);
            }
            queue.any_left.store(!left.is_empty(), Ordering::Relaxed);
            return Some(entry(slot, None));
        }
        let slot = lock(&queue.free).pop_front()?;
        Some(entry(slot, None))
    }
}

impl Entry {
    /// What an earlier process left.
    pub fn recalled(&self) -> Option<&Recalled> {
        self.recalled.as_ref()
    }

    /// The request is about to be carried out; before that, `evidence` is so.
    pub fn begin(&self, evidence: &Evidence) {
        let state = self.word(STATE);
        state.store(0, Ordering::Release);
        self.word(UNIQUE).store(self.unique, Ordering::Relaxed);
        self.stamp();
        for (at, word) in evidence.iter().enumerate() {
            self.word(EVIDENCE + at).store(*word, Ordering::Relaxed);
        }
        state.store(BEGUN | self.opcode_bits(), Ordering::Release);
    }

    /// The request was not carried out after all.
    pub fn withdraw(&self) {
        self.word(STATE).store(0, Ordering::Release);
    }

    /// It was carried out, with an errno or 0 and the reply's body.
    pub fn done(&self, error: i32, body: &[u8]) {
        if body.len() > BODY_WORDS * 8 {
            return self.withdraw();
        }
        for (at, part) in body.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            let word = u64::from_le_bytes(word);
            self.word(BODY + at).store(word, Ordering::Relaxed);
        }
        self.word(LENGTH)
            .store(body.len() as u64, Ordering::Relaxed);
        self.word(UNIQUE).store(self.unique, Ordering::Relaxed);
        self.stamp();
        let error = u64::from(error.cast_unsigned()) << 32;
        let state = DONE | self.opcode_bits() | error;
        self.word(STATE).store(state, Ordering::Release);
    }

    fn stamp(&self) {
        let queue = &self.journal.journals.queues[self.journal.queue];
        let sequence = queue.sequence.fetch_add(1, Ordering::Relaxed);
        self.word(SEQUENCE).store(sequence, Ordering::Relaxed);
    }

    fn opcode_bits(&self) -> u64 {
        u64::from(self.opcode as u32) << 8
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        self.journal
            .journals
            .word(self.journal.queue, self.slot, at)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.journal.journals.queues[self.journal.queue].free).push_back(self.slot);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
