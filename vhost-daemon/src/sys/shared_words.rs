//! A file of 64-bit words, mapped shared: what is stored survives the death of the process.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::lost_memory::Guarded;
use super::mapping::Mapping;

/// Words of a file.
#[derive(Debug)]
pub struct SharedWords {
    // Before the mapping: fields are dropped in this order, and what is guarded must be mapped.
    guard: Guarded,
    mapping: Mapping,
    len: usize,
    loss_noticed: AtomicBool,
}

impl SharedWords {
    /// Maps `len` words of `file` from `offset` bytes, a multiple of the page size, on. The file is made
    /// longer for that; new words are zero. Where there is no room it is as long as before.
    ///
    /// # Errors
    /// ftruncate(2)'s, fallocate(2)'s and mmap(2)'s.
    pub fn map(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        let bytes = len.checked_mul(8).filter(|bytes| *bytes > 0);
        let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
        let end = offset + bytes as u64;
        let before = file.metadata()?.len();
        // A page that the file system has no room for later would be lost with what is in it.
        if let Err(error) = Mapping::make_room(file, offset, bytes as u64) {
            // Some file systems have made it longer by what there was room for.
            if file.metadata()?.len() > before {
                file.set_len(before)?;
            }
            return Err(error);
        }
        // Where no room can be kept, and nothing was done.
        if file.metadata()?.len() < end {
            file.set_len(end)?;
        }
        let mapping = Mapping::shared(file, offset, bytes, true)?;
        // SAFETY: the mapping is ours alone, outlives the guard (fields are dropped in order), and
        // holds atomic words of any value.
        let guard = unsafe { Guarded::new(mapping.start(), bytes) }?;
        Ok(Self {
            guard,
            mapping,
            len,
            loss_noticed: AtomicBool::new(false),
        })
    }

    /// Begins with the words `layout`: unless it did before, all others become zero.
    pub fn lay_out(&self, layout: &[u64]) {
        let known = |(at, word): (usize, &u64)| self.word(at).load(Ordering::Acquire) == *word;
        if layout.iter().enumerate().all(known) {
            return;
        }
        (0..self.len).for_each(|at| self.word(at).store(0, Ordering::Relaxed));
        // The first one, which names the form, comes last.
        for (at, word) in layout.iter().enumerate().rev() {
            self.word(at).store(*word, Ordering::Release);
        }
    }

    /// Whether the file was cut short, so that what is stored survives nothing any more; `true` once.
    pub fn is_newly_lost(&self) -> bool {
        self.guard.known_lost() && !self.loss_noticed.swap(true, Ordering::Relaxed)
    }

    /// The word at `index`.
    ///
    /// # Panics
    /// When there is no such word.
    pub fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len, "word {index} of {}", self.len);
        let start = self.mapping.start().cast::<AtomicU64>().cast_const();
        // SAFETY: the mapping is page-aligned and has `len` words; the index was checked.
        unsafe { &*start.wrapping_add(index) }
    }
}
