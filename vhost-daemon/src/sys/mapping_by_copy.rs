//! In place of a mapping, for Miri, which maps no files: a copy, written back at its end. Who maps the file afterwards
//! finds what was stored, as a process does that comes after another.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::slice;

use super::aligned::AlignedBytes;

/// What the real one is aligned to.
const PAGE: usize = 4096;

/// A copy of a part of a file.
#[derive(Debug)]
pub(super) struct Mapping {
    bytes: AlignedBytes,
    len: usize,
    back_to: Option<(File, u64)>,
}

// SAFETY: the bytes are used through raw copies and atomics only, from any thread, and live until the drop.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Miri knows no fallocate(2).
    ///
    /// # Errors
    /// None.
    pub(super) fn make_room(_: &File, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    /// Copies `len` bytes of `file` from `offset`.
    ///
    /// # Errors
    /// Those of reading; memory that is short.
    pub(super) fn shared(file: &File, offset: u64, len: usize, writable: bool) -> io::Result<Self> {
        let bytes = AlignedBytes::zeroed(len, PAGE).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: `len` bytes of ours that nobody else knows of yet, zero so far.
        let all = unsafe { slice::from_raw_parts_mut(bytes.address(0).cast(), len) };
        file.read_exact_at(all, offset)?;
        let back_to = writable.then(|| file.try_clone()).transpose()?;
        Ok(Self {
            bytes,
            len,
            back_to: back_to.map(|file| (file, offset)),
        })
    }

    /// The address of the first byte.
    pub(super) fn start(&self) -> *mut u8 {
        self.bytes.address(0).cast()
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some((file, offset)) = &self.back_to {
            // SAFETY: all bytes are initialised, and nobody copies any more.
            let all = unsafe { slice::from_raw_parts(self.start().cast_const(), self.len) };
            let written = file.write_all_at(all, *offset);
            debug_assert!(written.is_ok());
        }
    }
}
