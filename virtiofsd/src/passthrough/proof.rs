//! Whether a file is the same one.

use rustix::fs::StatxFlags;

use crate::sys::{FileHandle, FileStatus};

/// What tells a file from the next one that gets its inode number, as far as its file system tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proof {
    kind: u32,
    born: Option<(i64, u32)>,
    /// Has the inode's generation in it. To get one takes no capability.
    handle: Option<FileHandle>,
}

impl Proof {
    pub(super) fn of(status: &FileStatus, handle: Option<&FileHandle>) -> Self {
        let born = status.raw.stx_btime;
        let known = status.raw.stx_mask & StatxFlags::BTIME.bits() != 0;
        Self {
            kind: status.attributes.st_mode & libc::S_IFMT,
            born: known.then_some((born.tv_sec, born.tv_nsec)),
            handle: handle.cloned(),
        }
    }
}
