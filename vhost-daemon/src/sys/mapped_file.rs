//! A file in memory, mapped: copied from and to without a system call.

use std::fs::File;
use std::io;
use std::ptr;

use super::Buffers;
use super::lost_memory::Guarded;
use super::mapping::Mapping;

/// A part of a file, mapped shared. Others may write to the file, or cut it short, at any time.
#[derive(Debug)]
pub struct MappedFile {
    // Before the mapping: fields are dropped in this order, and what is guarded must be mapped.
    guard: Guarded,
    mapping: Mapping,
    writable: bool,
}

impl MappedFile {
    /// Maps `len` bytes of `file` from `offset`, a multiple of the page size, for reading and, if
    /// `writable`, for writing.
    ///
    /// # Errors
    /// mmap(2)'s, and when too much memory is guarded already.
    pub fn new(file: &File, offset: u64, len: usize, writable: bool) -> io::Result<Self> {
        let mapping = Mapping::shared(file, offset, len, writable)?;
        // SAFETY: the mapping is ours alone, outlives the guard (fields are dropped in order), and
        // holds a file's bytes, which may have any value.
        let guard = unsafe { Guarded::new(mapping.start(), len) }?;
        Ok(Self {
            guard,
            mapping,
            writable,
        })
    }

    /// Whether the file was cut short, or had no room for a page, when it was last copied from or to. The
    /// mapping is of no more use then.
    pub fn is_lost(&self) -> bool {
        self.guard.is_lost()
    }

    /// Fills `buffers` with what is at `offset` bytes in the mapping. `false` if that is not all inside
    /// it, or lost: the buffers then hold anything.
    #[must_use]
    pub fn copy_to(&self, buffers: &Buffers, offset: usize) -> bool {
        let Some(mut from) = self.range(offset, buffers.len()) else {
            return false;
        };
        for part in buffers.iovecs() {
            // SAFETY: the guest's part is mapped for as long as `buffers` lives, `part.iov_len` bytes
            // from `from` are inside our mapping, and two mappings do not overlap. Both may change
            // meanwhile: the bytes are copied as bytes and never looked at. Pages that vanish are
            // replaced by the guards on both sides.
            unsafe { ptr::copy_nonoverlapping(from, part.iov_base.cast(), part.iov_len) };
            from = from.wrapping_add(part.iov_len);
        }
        !self.is_lost()
    }

    /// Writes `buffers` at `offset` bytes in the mapping. `false` if that is not all inside it, or lost,
    /// or the mapping is not writable: any part may have been written then.
    #[must_use]
    pub fn copy_from(&self, buffers: &Buffers, offset: usize) -> bool {
        let Some(to) = self.range(offset, buffers.len()).filter(|_| self.writable) else {
            return false;
        };
        let mut to = to.cast_mut();
        for part in buffers.iovecs() {
            // SAFETY: as for reading, the other way round; the mapping is writable.
            unsafe {
                ptr::copy_nonoverlapping(part.iov_base.cast_const().cast(), to, part.iov_len)
            };
            to = to.wrapping_add(part.iov_len);
        }
        !self.is_lost()
    }

    /// Where `len` bytes at `offset` are, if they are all inside and not known to be lost.
    fn range(&self, offset: usize, len: usize) -> Option<*const u8> {
        if self.guard.known_lost() {
            return None;
        }
        let end = offset.checked_add(len)?;
        let start = self.mapping.start().cast_const();
        (end <= self.mapping.len()).then(|| start.wrapping_add(offset))
    }
}
