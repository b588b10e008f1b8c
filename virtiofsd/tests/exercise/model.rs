//! What a file's content must be.

use rustix::fs::FallocateFlags as Flags;

use super::operation::{LONGEST, Range};

#[derive(Debug, Default)]
pub struct Model(Vec<u8>);

impl Model {
    pub fn content(&self) -> &[u8] {
        &self.0
    }

    pub fn size(&self) -> u64 {
        self.0.len() as u64
    }

    /// What a read of `range` gives.
    pub fn read(&self, range: Range) -> &[u8] {
        let end = range.end().min(self.size());
        let at = range.at.min(end);
        &self.0[at as usize..end as usize]
    }

    pub fn resize(&mut self, size: u64) {
        self.0.resize(size as usize, 0);
    }

    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let range = Range {
            at,
            len: bytes.len() as u64,
        };
        self.resize(self.size().max(range.end()));
        self.0[range.bytes()].copy_from_slice(bytes);
    }

    /// What fallocate(2) does, where it is done at all. `false`: it must be refused.
    pub fn allocate(&mut self, mode: Flags, range: Range) -> bool {
        let end = range.end().min(self.size());
        let inside = range.at.min(end) as usize..end as usize;
        match mode {
            Flags::COLLAPSE_RANGE => {
                if range.end() >= self.size() {
                    return false;
                }
                self.0.drain(inside);
            }
            Flags::INSERT_RANGE => {
                if range.at >= self.size() || self.size() + range.len > LONGEST {
                    return false;
                }
                let zeros = std::iter::repeat_n(0, range.len as usize);
                self.0.splice(range.at as usize..range.at as usize, zeros);
            }
            mode => {
                if mode.intersects(Flags::PUNCH_HOLE | Flags::ZERO_RANGE) {
                    self.0[inside].fill(0);
                }
                if !mode.contains(Flags::KEEP_SIZE) {
                    self.resize(self.size().max(range.end()));
                }
            }
        }
        true
    }
}
