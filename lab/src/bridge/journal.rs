//! What a mount's programs made of the file system beneath: a record of changes and syncs in the order in
//! which they were answered. Replayed up to any point it gives the medium that a power cut would have left.

use std::sync::{Mutex, PoisonError};

use super::Result;
use super::layout::{HEAD, Slots};
use crate::frontend::fs::{IN_HEADER_LEN, OUT_HEADER_LEN, u32_at, u64_at};

/// Operations (`enum fuse_opcode` in linux/fuse.h).
const SETATTR: u32 = 4;
const WRITE: u32 = 16;
const FSYNC: u32 = 20;
const FALLOCATE: u32 = 43;
/// `FATTR_SIZE`, in `struct fuse_setattr_in.valid`.
const SIZE: u32 = 1 << 3;
/// fallocate(2): modes after which a range reads as zeroes (PUNCH_HOLE, ZERO_RANGE).
const ZEROES: u32 = 0x02 | 0x10;

/// Something that was done to a file, and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes were written.
    Write {
        /// Where.
        offset: u64,
        /// All of them.
        bytes: Vec<u8>,
    },
    /// A range was made to read as zeroes.
    Zero {
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// The file was cut or made longer.
    Resize(u64),
    /// fsync(2) or fdatasync(2) of all that was answered before it was asked for: so many events.
    Sync(usize),
}

/// A record of all files of a mount together: it is meant for mounts with one file that is changed.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Vec<Event>>);

impl Event {
    /// Does it to an image.
    pub fn apply(&self, image: &mut Vec<u8>) {
        let place = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        match self {
            Self::Write { offset, bytes } => {
                let (from, to) = (place(*offset), place(*offset) + bytes.len());
                image.resize(image.len().max(to), 0);
                image[from..to].copy_from_slice(bytes);
            }
            Self::Zero { offset, len } => {
                let end = image.len();
                image[place(*offset).min(end)..place(offset + len).min(end)].fill(0);
            }
            Self::Resize(len) => image.resize(place(*len), 0),
            Self::Sync(_) => {}
        }
    }
}

impl Journal {
    /// How much there is.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nothing was changed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of the first events a power cut would have left for certain, behind `events`.
    pub fn durable(events: &[Event]) -> usize {
        let synced = events.iter().map(|event| match event {
            Event::Sync(before) => *before,
            _ => 0,
        });
        synced.max().unwrap_or(0)
    }

    /// All of it so far.
    pub fn events(&self) -> Vec<Event> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes a request of `len` bytes in a slot whose reply has come without an error. When it was asked, the
    /// journal had `before` events.
    pub(super) fn note(
        &self,
        (opcode, len, before): (u32, usize, usize),
        slots: &Slots,
        slot: u16,
    ) -> Result<()> {
        if ![SETATTR, WRITE, FSYNC, FALLOCATE].contains(&opcode) {
            return Ok(());
        }
        let request = slots.copy(slot, len)?;
        let body = &request[IN_HEADER_LEN..];
        let (word, long) = (
            |at| u32_at(body, at).unwrap_or(0),
            |at| u64_at(body, at).unwrap_or(0),
        );
        let event = match opcode {
            WRITE => {
                let written = slots
                    .memory()
                    .read(slots.reply_body(slot, len), 4)
                    .map(|reply| u32_at(&reply, 0).unwrap_or(0))?;
                let bytes = request.get(HEAD..).unwrap_or_default();
                Event::Write {
                    offset: long(8),
                    bytes: bytes[..bytes.len().min(written as usize)].to_vec(),
                }
            }
            FSYNC => Event::Sync(before),
            FALLOCATE if word(24) & ZEROES != 0 => Event::Zero {
                offset: long(8),
                len: long(16),
            },
            SETATTR if word(0) & SIZE != 0 => Event::Resize(long(16)),
            _ => return Ok(()),
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(event);
        Ok(())
    }

    /// Whether a reply is no error.
    pub(super) fn succeeded(header: &[u8; OUT_HEADER_LEN]) -> bool {
        u32_at(header, 4) == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_make_an_image() {
        let mut image = vec![1; 8];
        let events = [
            Event::Write {
                offset: 6,
                bytes: vec![2; 4],
            },
            Event::Zero { offset: 0, len: 2 },
            Event::Sync(2),
            Event::Resize(9),
        ];
        for event in events {
            event.apply(&mut image);
        }
        assert_eq!(image, [0, 0, 1, 1, 1, 1, 2, 2, 2]);
    }
}
