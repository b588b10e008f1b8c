//! A guest's memory that a front end may take away.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::fstatfs;
use vm_memory::{GuestMemoryBackend, GuestRegionMmap};

use super::DirtyLog;
use super::lost_memory::{Guarded, any_lost};
use crate::memory::Memory;

/// A memory table, held mapped, that survives its files being cut short: what was there then is lost.
#[derive(Debug)]
pub struct GuardedMemory {
    // Before the memory: fields are dropped in this order, and what is guarded must be mapped.
    guards: Vec<Guarded>,
    memory: Arc<Memory>,
}

impl GuardedMemory {
    /// Guards every region of `memory` that has a file.
    ///
    /// # Errors
    /// When more regions are guarded than there is room for.
    pub fn new(memory: Arc<Memory>) -> io::Result<Self> {
        let guards = memory.iter().filter_map(|region| guard(region).transpose());
        let guards = guards.collect::<io::Result<_>>()?;
        Ok(Self { guards, memory })
    }

    /// Whether the front end took memory away that was touched since.
    pub fn is_lost(&self) -> bool {
        any_lost() && self.guards.iter().any(Guarded::is_lost)
    }

    /// The table.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}

/// Guards a region; `None` if there is no file that could be cut short.
fn guard(region: &GuestRegionMmap<DirtyLog>) -> io::Result<Option<Guarded>> {
    let Some(backing) = region.file_offset() else {
        return Ok(None);
    };
    let len = region.size().next_multiple_of(granularity(backing.file())?);
    // SAFETY: vm-memory made a mapping of whole pages for this region alone. It lives as long as the
    // table, which `GuardedMemory` drops after the guards, and holds bytes of any value.
    unsafe { Guarded::new(region.as_ptr().cast_const(), len) }.map(Some)
}

/// What the length of a mapping of `file` must be a multiple of to be replaced. The kernel rounds a
/// length up to usual pages by itself, to those of hugetlbfs it does not.
fn granularity(file: &File) -> io::Result<usize> {
    const HUGETLBFS: u64 = 0x9584_58f6;
    let stat = fstatfs(file)?;
    let is_huge = u64::try_from(stat.f_type).is_ok_and(|kind| kind == HUGETLBFS);
    let page = usize::try_from(stat.f_bsize).unwrap_or(0);
    Ok(if is_huge && page.is_power_of_two() {
        page
    } else {
        1
    })
}
