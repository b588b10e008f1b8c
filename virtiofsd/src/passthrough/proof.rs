//! Whether a file is the same one.

use rustix::fs::StatxFlags;

use crate::state::SavedNode;
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
        Self {
            kind: status.attributes.st_mode & libc::S_IFMT,
            born: born(status),
            handle: handle.cloned(),
        }
    }

    /// What an earlier process knew of a node.
    pub(super) fn saved(node: &SavedNode) -> Self {
        Self {
            kind: node.kind,
            born: node.born,
            handle: node.handle.clone(),
        }
    }
}

/// When the file was made, in seconds and nanoseconds, where its file system tells.
pub(super) fn born(status: &FileStatus) -> Option<(i64, u32)> {
    let born = status.raw.stx_btime;
    let known = status.raw.stx_mask & StatxFlags::BTIME.bits() != 0;
    known.then_some((born.tv_sec, born.tv_nsec))
}
