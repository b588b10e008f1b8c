//! A part of a file, mapped shared.

use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Mapped memory of ours, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is used through raw copies and atomics only, from any thread, and lives until the
// drop.
unsafe impl Send for Mapping {}
// SAFETY: as above; copies at the same time are like accesses of other processes, which happen anyway.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Has the file system keep room for `len` bytes of `file` from `offset`, if it can do that.
    ///
    /// # Errors
    /// fallocate(2)'s.
    pub(super) fn make_room(file: &File, offset: u64, len: u64) -> io::Result<()> {
        match fallocate(file, FallocateFlags::empty(), offset, len) {
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Maps `len` bytes of `file` from `offset`, shared with all who open it.
    ///
    /// # Errors
    /// mmap(2)'s.
    pub(super) fn shared(file: &File, offset: u64, len: usize, writable: bool) -> io::Result<Self> {
        let mut protection = ProtFlags::READ;
        protection.set(ProtFlags::WRITE, writable);
        let (anywhere, flags) = (ptr::null_mut(), MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(anywhere, len, protection, flags, file, offset) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The address of the first byte.
    pub(super) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made with this address and length; nobody copies any more, and it is not guarded.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}
