//! A guest's memory: a front end may take it away, and it is nobody else's business.

use std::io;
use std::sync::Arc;

use rustix::mm::{Advice, madvise};
use vm_memory::{GuestMemoryBackend, GuestRegionMmap};

use super::DirtyLog;
use super::lost_memory::{Guarded, any_lost};
use crate::memory::{Memory, huge_page};

/// A memory table, held mapped, that survives its files being cut short: what was there then is lost.
#[derive(Debug)]
pub struct GuardedMemory {
    // Before the memory: fields are dropped in this order, and what is guarded must be mapped.
    guards: Vec<Guarded>,
    memory: Arc<Memory>,
}

impl GuardedMemory {
    /// Guards every region of `memory` that has a file, and keeps all of it out of core dumps.
    ///
    /// # Errors
    /// When more regions are guarded than there is room for.
    pub fn new(memory: Arc<Memory>) -> io::Result<Self> {
        memory.iter().try_for_each(keep_out_of_dumps)?;
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

/// A core dump of a daemon's holds shared memory without a name, which a guest's is, unless it is told not to
/// (core(5), `coredump_filter`).
fn keep_out_of_dumps(region: &GuestRegionMmap<DirtyLog>) -> io::Result<()> {
    if cfg!(miri) {
        // Miri knows no madvise(2), and dumps no core.
        return Ok(());
    }
    // SAFETY: the region is a mapping of its own, which the caller holds. What is advised changes no byte
    // of it and no access to it.
    unsafe { madvise(region.as_ptr().cast(), region.size(), Advice::LinuxDontDump) }?;
    Ok(())
}

/// Guards a region; `None` if there is no file that could be cut short.
fn guard(region: &GuestRegionMmap<DirtyLog>) -> io::Result<Option<Guarded>> {
    let Some(backing) = region.file_offset() else {
        return Ok(None);
    };
    let page = huge_page(backing.file())?.unwrap_or(1);
    let page = usize::try_from(page).unwrap_or(1);
    let len = region.size().next_multiple_of(page);
    // SAFETY: vm-memory made a mapping of whole pages for this region alone. It lives as long as the
    // table, which `GuardedMemory` drops after the guards, and holds bytes of any value.
    unsafe { Guarded::new(region.as_ptr().cast_const(), len) }.map(Some)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use vm_memory::GuestAddress;

    use super::*;
    use crate::memory::PinnedMemory;

    /// `dd` in smaps is VM_DONTDUMP (proc(5)).
    #[test]
    fn a_guests_memory_is_in_no_core_dump() {
        let memory = Memory::from_ranges(&[(GuestAddress(0), 64 << 10)]).unwrap();
        let pinned = PinnedMemory::new(memory).unwrap();
        let start = pinned.iter().next().unwrap().as_ptr().addr();
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let from = maps.find(&format!("{start:08x}-")).unwrap();
        let flags = maps[from..]
            .lines()
            .find(|line| line.starts_with("VmFlags:"));
        let flags = flags.unwrap();
        assert!(flags.split(' ').any(|flag| flag == "dd"), "{flags}");
    }
}
