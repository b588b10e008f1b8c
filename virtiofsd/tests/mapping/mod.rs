//! Mappings of files.
#![allow(unsafe_code, reason = "mmap(2)")]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

/// Whom what is written to a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// The file.
    Shared,
    /// The mapping alone.
    Private,
    /// Nobody: it is only read.
    ReadOnly,
}

/// The first bytes of a file in memory. The file must stay as long meanwhile.
#[derive(Debug)]
pub struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: an address of this process's, which is the same in all threads; every access copies bytes.
unsafe impl Send for Mapping {}

/// Maps the first `len` bytes of `file`.
pub fn map(file: &File, len: usize, sharing: Sharing) -> io::Result<Mapping> {
    let (protection, flags) = match sharing {
        Sharing::Shared => (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED),
        Sharing::Private => (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE),
        Sharing::ReadOnly => (libc::PROT_READ, libc::MAP_SHARED),
    };
    // SAFETY: a new mapping, placed where the kernel likes.
    let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, file.as_raw_fd(), 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(Mapping {
        base: base.cast(),
        len,
    })
}

impl Mapping {
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len));
        self.base.wrapping_add(offset)
    }

    /// Copies `len` bytes out.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let source = self.at(offset, len);
        let mut bytes = vec![0; len];
        // SAFETY: all of it lies inside the mapping, checked by `at`; the target is as long.
        unsafe { ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), len) };
        bytes
    }

    /// Copies `bytes` in.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let target = self.at(offset, bytes.len());
        // SAFETY: all of it lies inside the mapping, checked by `at`.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }

    /// Brings what was written into the file (msync(2)).
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the mapping made by `map`.
        match unsafe { libc::msync(self.base.cast(), self.len, libc::MS_SYNC) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `map`; nothing points into it any more.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// Writes `bytes` at `offset` of the first two pages of `file` through a mapping, and flushes them.
pub fn write(file: &File, offset: usize, bytes: &[u8]) -> Result<(), Option<i32>> {
    let written = || {
        let mapping = map(file, 8192, Sharing::Shared)?;
        mapping.write(offset, bytes);
        mapping.sync()
    };
    written().map_err(|error| error.raw_os_error())
}
