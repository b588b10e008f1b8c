//! Memory that survives the process, in units of 128 bytes: a file, mapped, that grows.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use vhost_daemon::sys::SharedWords;

/// Names a unit.
pub(super) type Unit = u32;

/// Words of a unit.
pub(super) const WORDS: usize = 16;
/// Where units begin in the file, in bytes: behind the session's page.
const START: u64 = 4096;
/// Words of that page.
const HEAD: usize = 512;
/// Units of the first chunk (1 MiB). Each further one is as large as all before it and one more.
const FIRST: u32 = 8192;
/// Chunks at most: 2^27 units, 16 GiB.
const CHUNKS: usize = 14;

/// Word 0 of a unit that is free.
pub(super) const FREE: u64 = 0;

/// All units.
#[derive(Debug)]
pub(super) struct Units {
    file: File,
    /// The session's page, whose first word says whether the rest is gone by.
    head: SharedWords,
    chunks: [OnceLock<SharedWords>; CHUNKS],
    room: Mutex<Room>,
    /// There was no room once: what is remembered is not all there is.
    broken: AtomicBool,
    /// Some of what an earlier process has left could not be mapped.
    is_cut: bool,
}

#[derive(Debug, Default)]
struct Room {
    free: Vec<Unit>,
    /// Units from here on were never used.
    fresh: Unit,
    /// Units there are.
    end: Unit,
}

impl Units {
    /// The units of `file`, all as they were left, unless there is no room for them. None counts as free
    /// yet.
    ///
    /// # Errors
    /// mmap(2)'s, of the session's page.
    pub(super) fn open(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let mut units = Self {
            head: SharedWords::map(&file, 0, HEAD)?,
            file,
            chunks: [const { OnceLock::new() }; CHUNKS],
            room: Mutex::default(),
            broken: AtomicBool::new(false),
            is_cut: false,
        };
        let mut end = 0;
        for chunk in 0..CHUNKS {
            if offset_of(chunk) + bytes_of(chunk) > len {
                break;
            }
            if let Err(error) = units.map(chunk) {
                tracing::warn!(%error, "--state-dir has no room for what it says to hold");
                units.is_cut = true;
                // Otherwise the next process finds the same.
                units.file.set_len(offset_of(chunk))?;
                break;
            }
            end = first_of(chunk) + size_of(chunk);
        }
        *units.room() = Room {
            end,
            fresh: end,
            free: Vec::new(),
        };
        Ok(units)
    }

    /// Whether what an earlier process has left is not all here: nothing can be gone by, then.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many units have been used ever.
    pub(super) fn len(&self) -> Unit {
        self.room().fresh
    }

    /// A unit that nobody has; word 0 is still [`FREE`]. `None` once there was no room for one.
    pub(super) fn allocate(&self) -> Option<Unit> {
        if self.is_broken() {
            return None;
        }
        let mut room = self.room();
        if let Some(unit) = room.free.pop() {
            return Some(unit);
        }
        if room.fresh == room.end {
            let grown = self.grow(&mut room);
            if let Err(error) = grown {
                drop(room);
                self.give_up(&error);
                return None;
            }
        }
        room.fresh += 1;
        Some(room.fresh - 1)
    }

    /// Gives a unit back.
    pub(super) fn free(&self, unit: Unit) {
        self.word(unit, 0).store(FREE, Ordering::Release);
        self.room().free.push(unit);
    }

    /// A word of a unit that was allocated, or left.
    pub(super) fn word(&self, unit: Unit, at: usize) -> &AtomicU64 {
        debug_assert!(at < WORDS);
        let chunk = chunk_of(unit);
        let inside = (unit - first_of(chunk)) as usize;
        // Units come from `allocate` and from what is mapped only: the chunk is there.
        match self.chunks[chunk].get() {
            Some(words) => words.word(inside * WORDS + at),
            None => &NOWHERE,
        }
    }

    /// What a unit's word holds.
    pub(super) fn load(&self, unit: Unit, at: usize) -> u64 {
        self.word(unit, at).load(Ordering::Acquire)
    }

    pub(super) fn store(&self, unit: Unit, at: usize, word: u64) {
        self.word(unit, at).store(word, Ordering::Relaxed);
    }

    /// Whether something could not be remembered, so that the next process must not go by the rest.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn give_up(&self, error: &io::Error) {
        if !self.broken.swap(true, Ordering::Relaxed) {
            // The magic number: without it nothing is restored. In memory, as a queue's thread writes to
            // no file by itself.
            self.head.word(0).store(0, Ordering::Release);
            tracing::error!(
                %error,
                "no room in --state-dir: what guests have open does not outlive this process"
            );
        }
    }

    fn grow(&self, room: &mut Room) -> io::Result<()> {
        let chunk = if room.end == 0 {
            0
        } else {
            chunk_of(room.end - 1) + 1
        };
        if chunk == CHUNKS {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.map(chunk)?;
        room.end = first_of(chunk) + size_of(chunk);
        Ok(())
    }

    fn map(&self, chunk: usize) -> io::Result<()> {
        let words = size_of(chunk) as usize * WORDS;
        let words = SharedWords::map(&self.file, offset_of(chunk), words)?;
        self.chunks[chunk]
            .set(words)
            .map_err(|_| io::ErrorKind::AlreadyExists.into())
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stands for a unit that is not there.
static NOWHERE: AtomicU64 = AtomicU64::new(FREE);

fn chunk_of(unit: Unit) -> usize {
    (unit / FIRST + 1).ilog2() as usize
}

fn first_of(chunk: usize) -> Unit {
    FIRST * ((1 << chunk) - 1)
}

fn size_of(chunk: usize) -> Unit {
    FIRST << chunk
}

fn offset_of(chunk: usize) -> u64 {
    START + u64::from(first_of(chunk)) * (WORDS * 8) as u64
}

fn bytes_of(chunk: usize) -> u64 {
    u64::from(size_of(chunk)) * (WORDS * 8) as u64
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    use super::*;

    #[test]
    fn units_are_found_in_their_chunks() {
        for (unit, chunk) in [
            (0, 0),
            (FIRST - 1, 0),
            (FIRST, 1),
            (3 * FIRST - 1, 1),
            (3 * FIRST, 2),
        ] {
            assert_eq!(chunk_of(unit), chunk, "{unit}");
            assert!((first_of(chunk)..first_of(chunk) + size_of(chunk)).contains(&unit));
        }
        assert_eq!(offset_of(1), START + (1 << 20));
    }

    #[test]
    fn what_is_stored_outlives_the_value() {
        let file = tempfile::tempfile().unwrap();
        let units = Units::open(file.try_clone().unwrap()).unwrap();
        let kept: Vec<Unit> = (0..FIRST + 2).map(|_| units.allocate().unwrap()).collect();
        for unit in &kept {
            units.store(*unit, 3, u64::from(*unit) + 7);
        }
        drop(units);
        let units = Units::open(file).unwrap();
        assert_eq!(units.len(), 3 * FIRST);
        assert!(
            kept.iter()
                .all(|unit| units.load(*unit, 3) == u64::from(*unit) + 7)
        );
        units.free(5);
        assert_eq!(units.allocate(), Some(5));
    }

    #[test]
    fn no_room_is_said_and_not_gone_on_from() {
        let file = memfd_create("nodes", MemfdFlags::ALLOW_SEALING).unwrap();
        let file = File::from(file);
        let units = Units::open(file.try_clone().unwrap()).unwrap();
        let magic = units.head.word(0);
        magic.store(7, Ordering::Relaxed);
        fcntl_add_seals(&file, SealFlags::GROW).unwrap();
        assert_eq!(units.allocate(), None, "the file cannot be made longer");
        assert!(units.is_broken() && !units.is_cut());
        assert_eq!(magic.load(Ordering::Relaxed), 0);
        assert_eq!(file.metadata().unwrap().len(), START);
    }
}
