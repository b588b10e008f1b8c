//! Buffers for `O_DIRECT`.

use super::operation::SECTOR;

/// Zeros whose address is a multiple of a sector, as `O_DIRECT` wants it.
pub(super) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(super) fn new(len: usize) -> Self {
        let bytes = vec![0_u8; len + SECTOR as usize];
        let start = bytes.as_ptr().align_offset(SECTOR as usize);
        Self { bytes, start, len }
    }

    pub(super) fn of(content: &[u8]) -> Self {
        let mut aligned = Self::new(content.len());
        aligned.as_mut().copy_from_slice(content);
        aligned
    }

    pub(super) fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[test]
fn aligned_buffers_are_aligned() {
    let aligned = Aligned::of(&[1, 2, 3]);
    assert_eq!(aligned.as_ref(), [1, 2, 3]);
    assert_eq!(aligned.as_ref().as_ptr() as usize % SECTOR as usize, 0);
}
