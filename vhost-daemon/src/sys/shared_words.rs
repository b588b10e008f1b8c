//! A file of 64-bit words, mapped shared: what is stored survives the death of the process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::AtomicU64;

use rustix::fs::{FlockOperation, flock};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The words of one file. The file is locked (flock(2)) for as long as this value lives.
#[derive(Debug)]
pub struct SharedWords {
    start: *const AtomicU64,
    len: usize,
    _file: File,
}

// SAFETY: the words are atomics, and the mapping lives as long as the value.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Opens or makes `path` (mode 0600) with `len` words; new ones are zero.
    ///
    /// # Errors
    /// open(2)'s, ftruncate(2)'s and mmap(2)'s; `WouldBlock` when another process has it.
    pub fn open(path: &Path, len: usize) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let bytes = len.checked_mul(8).filter(|bytes| *bytes > 0);
        let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
        file.set_len(bytes as u64)?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice; the file has `bytes` bytes.
        let start = unsafe { mmap(ptr::null_mut(), bytes, protection, flags, &file, 0) }?;
        Ok(Self {
            start: start.cast_const().cast(),
            len,
            _file: file,
        })
    }

    /// The word at `index`.
    ///
    /// # Panics
    /// When there is no such word.
    pub fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len, "word {index} of {}", self.len);
        // SAFETY: the mapping is page-aligned and has `len` words; the index was checked.
        unsafe { &*self.start.wrapping_add(index) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this address and length; no reference outlives `self`.
        let unmapped = unsafe { munmap(self.start.cast_mut().cast(), self.len * 8) };
        debug_assert!(unmapped.is_ok());
    }
}
