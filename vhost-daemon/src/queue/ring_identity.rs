//! Which ring a queue runs on.

use std::os::unix::fs::MetadataExt;

use virtio_queue::QueueState;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::memory::Memory;

/// What tells a ring from others of this boot: where it is, its size, and in which file of guest memory (0 where
/// there is none). A guest that boots puts its rings where the one before it had them, in other memory or with
/// indexes that begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingIdentity([u64; Self::WORDS]);

impl RingIdentity {
    /// Words of a state file that it takes.
    pub const WORDS: usize = 6;

    /// That of `ring` in `memory`.
    pub(super) fn of(ring: &QueueState, memory: &Memory) -> Self {
        let region = memory.find_region(GuestAddress(ring.desc_table));
        let backing = region.and_then(|region| region.file_offset());
        let file = backing.and_then(|backing| backing.file().metadata().ok());
        let (device, inode) = file.map_or((0, 0), |file| (file.dev(), file.ino()));
        Self([
            ring.desc_table,
            ring.avail_ring,
            ring.used_ring,
            u64::from(ring.size),
            device,
            inode,
        ])
    }

    /// As [`words`](Self::words) gave it.
    #[must_use]
    pub fn from_words(words: [u64; Self::WORDS]) -> Self {
        Self(words)
    }

    /// The same as words of a state file.
    #[must_use]
    pub fn words(&self) -> [u64; Self::WORDS] {
        self.0
    }
}
