//! Freeing what large files occupy takes long: not for a queue's thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, StatxFlags, statx};

/// More bytes on disk than this take longer to free than a helper thread costs.
const LARGE: u64 = 64 << 20;

/// Bytes of a block in statx(2).
const BLOCK: u64 = 512;

/// Whether cutting `fd`'s file to `size` bytes frees so much that it takes long.
pub(super) fn takes_long_to_free(fd: impl AsFd, size: i64) -> io::Result<bool> {
    let status = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BLOCKS)?;
    let kept = u64::try_from(size).unwrap_or(0);
    Ok((status.stx_blocks * BLOCK).saturating_sub(kept) > LARGE)
}

/// Descriptors of large files without a name: closing the last one frees the file.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    files: Mutex<Vec<OwnedFd>>,
    some: AtomicBool,
}

impl Leftovers {
    /// Closes `fd`, or keeps it for someone who has the time.
    pub(super) fn close(&self, fd: OwnedFd) {
        let mask = StatxFlags::BLOCKS | StatxFlags::NLINK;
        let large = statx(&fd, c"", AtFlags::EMPTY_PATH, mask)
            .is_ok_and(|status| status.stx_nlink == 0 && status.stx_blocks * BLOCK > LARGE);
        if large {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            files.push(fd);
            self.some.store(true, Ordering::Release);
        }
    }

    /// What has been kept.
    pub(super) fn take(&self) -> Vec<OwnedFd> {
        if !self.some.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        self.some.store(false, Ordering::Release);
        std::mem::take(&mut *files)
    }
}
