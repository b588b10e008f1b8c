//! Writing a file through a shared mapping.
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

/// Writes `bytes` at `offset` of the first two pages of `file`, and flushes them.
pub fn write(file: &File, offset: usize, bytes: &[u8]) -> Result<(), Option<i32>> {
    const LEN: usize = 8192;
    assert!(offset + bytes.len() <= LEN);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, placed where the kernel likes.
    let base = unsafe {
        libc::mmap(
            ptr::null_mut(),
            LEN,
            protection,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error().raw_os_error());
    }
    let target = base.cast::<u8>().wrapping_add(offset);
    // SAFETY: `target` and all that is written lie inside the mapping, checked above; the file is
    // as long as the mapping.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    // SAFETY: the mapping made above.
    let flushed = unsafe { libc::msync(base, LEN, libc::MS_SYNC) };
    // SAFETY: the mapping made above, which nothing points into any more.
    unsafe { libc::munmap(base, LEN) };
    if flushed < 0 {
        Err(io::Error::last_os_error().raw_os_error())
    } else {
        Ok(())
    }
}
