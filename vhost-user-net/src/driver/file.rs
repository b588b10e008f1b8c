//! A driver's choices as words of a file that survives the process.
//!
//! The file is outside data: it has a fixed length, counts and numbers are checked when it is read, and what
//! makes no sense is no driver.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use vhost_daemon::boot_id::BootId;
use vhost_daemon::file_lock::open_locked;
use vhost_daemon::queue::RingIdentity;
use vhost_daemon::sys::SharedWords;

use super::{Choices, Driver};
use crate::backend::Offloads;
use crate::filter::Wishes;

/// "RSnetd" and the layout's version.
const MAGIC: u64 = 0x5253_6e65_7464_0001;
/// Words of the header: magic, boot.
const HEADER: usize = 3;
/// 1 while the words behind it are a driver's.
const VALID: usize = HEADER;
/// Features, used index, pairs, offloads; then the ring, then the wishes.
const NUMBERS: usize = VALID + 1;
const RING: usize = NUMBERS + 4;
const WISHES: usize = RING + RingIdentity::WORDS;
const LEN: usize = WISHES + Wishes::WORDS;

/// The state file of one port.
#[derive(Debug)]
pub struct DriverFile {
    /// Locked for as long as it is used.
    _file: File,
    words: SharedWords,
}

impl DriverFile {
    /// Opens or makes the file. One of another layout, or of another `boot` of the host, is started anew.
    ///
    /// # Errors
    /// open(2)'s, flock(2)'s and mmap(2)'s; `WouldBlock` when another process uses it.
    pub fn open(path: &Path, boot: BootId) -> io::Result<Self> {
        let file = open_locked(path)?;
        let words = SharedWords::map(&file, 0, LEN)?;
        let [high, low] = boot.words();
        words.lay_out(&[MAGIC, high, low]);
        Ok(Self { _file: file, words })
    }

    /// What is there of a driver; `lanes` is how many pairs it can use at most.
    pub(super) fn load(&self, lanes: usize) -> Option<Driver> {
        if self.word(VALID) != 1 {
            return None;
        }
        let pairs = match usize::try_from(self.word(NUMBERS + 2)).ok()? {
            0 => None,
            pairs if pairs <= lanes => Some(pairs),
            _ => return None,
        };
        let wishes: Vec<u64> = (WISHES..LEN).map(|at| self.word(at)).collect();
        Some(Driver {
            features: self.word(NUMBERS),
            ring: RingIdentity::from_words(std::array::from_fn(|at| self.word(RING + at))),
            used: u16::try_from(self.word(NUMBERS + 1)).ok()?,
            choices: Choices {
                pairs,
                // The port is asked for those only that it has.
                offloads: Offloads::from_bits(u32::try_from(self.word(NUMBERS + 3)).ok()?),
                wishes: Wishes::from_words(&wishes)?,
            },
        })
    }

    pub(super) fn store(&self, driver: &Driver) {
        let choices = &driver.choices;
        let numbers = [
            driver.features,
            driver.used.into(),
            choices.pairs.unwrap_or_default() as u64,
            choices.offloads.bits().into(),
        ];
        let ring = driver.ring.words();
        let words = numbers
            .into_iter()
            .chain(ring)
            .chain(choices.wishes.words());
        for (at, word) in (NUMBERS..LEN).zip(words) {
            self.set(at, word);
        }
        self.set(VALID, 1);
        self.tell_loss();
    }

    pub(super) fn clear(&self) {
        self.set(VALID, 0);
        self.tell_loss();
    }

    /// Says once that the file is gone from under us.
    fn tell_loss(&self) {
        if self.words.is_newly_lost() {
            tracing::error!(
                "the state file was cut short: what the driver sets is not remembered until a restart"
            );
        }
    }

    fn word(&self, at: usize) -> u64 {
        self.words.word(at).load(Ordering::Acquire)
    }

    fn set(&self, at: usize, word: u64) {
        self.words.word(at).store(word, Ordering::Release);
    }
}
