//! How many frames to ask for at a time, and how much room each is given.

use crate::sys::FrameBatch;

/// Bytes of one batch.
const CACHED: usize = 32 << 10;
/// Frames of a batch, however long they are: each system call has its price, too.
const LEAST: usize = 8;

/// What frames of late were like.
pub(super) struct Depth {
    frames: usize,
    bytes: usize,
    largest: usize,
}

impl Depth {
    /// Before any frame has come: one, of a usual size. None is given more room than `largest` bytes.
    pub(super) fn new(largest: usize) -> Self {
        Self {
            frames: 1,
            bytes: largest.min(1514),
            largest,
        }
    }

    /// Frames to ask for: no more than a processor's cache holds until they are the guest's.
    pub(super) fn frames(&self) -> usize {
        let cached = CACHED / self.bytes.max(1);
        self.frames.min(cached.max(LEAST))
    }

    /// Bytes to give to each.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// So many of those asked for came: asking in vain costs time, too few batches cost more.
    pub(super) fn came(&mut self, came: usize, asked: usize) {
        self.frames = if came == asked {
            (self.frames * 2).min(FrameBatch::MOST)
        } else {
            (came + 1).next_power_of_two().min(FrameBatch::MOST)
        };
    }

    /// A frame of `len` bytes: a longer one than before counts at once, shorter ones by and by.
    pub(super) fn saw(&mut self, len: usize) {
        if len > self.bytes {
            self.bytes = len.min(self.largest);
        } else {
            self.bytes -= (self.bytes - len) / 16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_follow_the_frames() {
        let mut depth = Depth::new(65_562);
        (0..200).for_each(|_| depth.saw(76));
        for _ in 0..10 {
            depth.came(depth.frames(), depth.frames());
        }
        assert_eq!(depth.frames(), FrameBatch::MOST);
        depth.saw(1514);
        assert_eq!(depth.frames(), 21);
        depth.saw(65_562);
        assert_eq!(depth.frames(), 8);
        depth.came(3, FrameBatch::MOST);
        assert_eq!(depth.frames(), 4);
        depth.came(0, 4);
        assert_eq!(depth.frames(), 1);
    }

    #[test]
    fn room_grows_at_once_and_shrinks_slowly() {
        let mut depth = Depth::new(65_562);
        depth.saw(60_000);
        assert_eq!(depth.bytes(), 60_000);
        depth.saw(60);
        assert!(depth.bytes() > 50_000);
        (0..200).for_each(|_| depth.saw(60));
        assert!(depth.bytes() < 100);
        depth.saw(100_000);
        assert_eq!(depth.bytes(), 65_562);
    }
}
