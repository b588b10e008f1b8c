//! Frames on their way from one queue's thread to another's.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;
use vhost_daemon::wakeup::Wakeup;

/// Most bytes of frames with their headers that wait, and that are being read.
const MOST_BYTES: usize = 2 << 20;
/// Most frames, as in a tap's own queue.
const MOST_FRAMES: usize = 1024;

/// Frames behind one another in one piece of memory.
pub(super) struct Bundle {
    /// Fresh from the kernel: pages that are never used are never there, and where there is no room for another
    /// guest's, its queue does not start, and the others' go on.
    bytes: MmapMut,
    used: usize,
    read: usize,
    lengths: VecDeque<usize>,
}

impl Bundle {
    /// # Errors
    /// When the process is out of memory.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            bytes: MmapMut::map_anon(MOST_BYTES)?,
            used: 0,
            read: 0,
            lengths: VecDeque::new(),
        })
    }

    /// Room for one more frame; `None` if there is none. [`keep`](Self::keep) makes it a frame.
    pub(super) fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.lengths.len() >= MOST_FRAMES {
            return None;
        }
        self.bytes.get_mut(self.used..)?.get_mut(..len)
    }

    /// The first `len` bytes of the room given last are a frame.
    pub(super) fn keep(&mut self, len: usize) {
        self.used += len;
        self.lengths.push_back(len);
    }

    /// The oldest frame.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let len = self.lengths.pop_front()?;
        let start = self.read;
        self.read += len;
        self.bytes.get(start..start + len)
    }

    /// Whether the last frame has been taken out.
    pub(super) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    fn clear(&mut self) {
        self.used = 0;
        self.read = 0;
        self.lengths.clear();
    }
}

/// Where senders leave frames for one receive queue.
pub(super) struct Mailbox {
    filling: Mutex<Bundle>,
    /// The reader has found nothing and sleeps, or is about to.
    asleep: AtomicBool,
    wakeup: Wakeup,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            filling: Mutex::new(Bundle::new()?),
            asleep: AtomicBool::new(true),
            wakeup: Wakeup::new()?,
        })
    }

    /// What is being filled.
    pub(super) fn lock(&self) -> MutexGuard<'_, Bundle> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was put in: the reader is woken if it sleeps.
    pub(super) fn delivered(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.wakeup.wake();
        }
    }

    /// Exchanges an emptied bundle for what has come; `false` if nothing has.
    pub(super) fn collect(&self, emptied: &mut Bundle) -> bool {
        emptied.clear();
        let collected = self.swap(emptied);
        if collected {
            return true;
        }
        // Whoever woke us left the wakeup readable.
        if !self.asleep.load(Ordering::SeqCst) {
            self.wakeup.clear();
        }
        self.asleep.store(true, Ordering::SeqCst);
        // A sender may have come by before it could see that we are asleep.
        let collected = self.swap(emptied);
        if collected {
            self.asleep.store(false, Ordering::SeqCst);
        }
        collected
    }

    fn swap(&self, emptied: &mut Bundle) -> bool {
        let mut filling = self.lock();
        let some = !filling.lengths.is_empty();
        if some {
            mem::swap(&mut *filling, emptied);
        }
        some
    }

    /// Throws away what waits.
    pub(super) fn discard(&self) {
        self.lock().clear();
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(mailbox: &Mailbox, frame: &[u8]) -> bool {
        let mut bundle = mailbox.lock();
        let Some(room) = bundle.room(frame.len()) else {
            return false;
        };
        room.copy_from_slice(frame);
        bundle.keep(frame.len());
        true
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let (mailbox, mut bundle) = (Mailbox::new().unwrap(), Bundle::new().unwrap());
        assert!(!mailbox.collect(&mut bundle));
        for round in 0..3_u8 {
            assert!(put(&mailbox, &[round; 60]) && put(&mailbox, &[round; 9000]));
            assert!(mailbox.collect(&mut bundle));
            assert_eq!(bundle.next(), Some(&[round; 60][..]));
            assert_eq!(bundle.next(), Some(&[round; 9000][..]));
            assert_eq!(bundle.next(), None);
        }
    }

    #[test]
    fn a_full_mailbox_takes_no_more() {
        let mailbox = Mailbox::new().unwrap();
        let small = (0..2000).filter(|_| put(&mailbox, &[1; 60])).count();
        assert_eq!(small, MOST_FRAMES);
        mailbox.discard();
        let large = (0..2000).filter(|_| put(&mailbox, &[1; 65_000])).count();
        assert_eq!(large, MOST_BYTES / 65_000);
    }
}
