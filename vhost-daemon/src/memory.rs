//! The guest's memory as a front end shared it.

use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::fstatfs;
use vm_memory::bitmap::Bitmap;
use vm_memory::{
    Address, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend,
    GuestMemoryMmap, GuestMemoryRegion,
};

use crate::sys::{DirtyLog, GuardedMemory};

/// Guest memory: the regions of one `SET_MEM_TABLE` (or of the `ADD_MEM_REG`s so far), mapped. Each
/// has a place for the front end's dirty log (vhost-user, "Migration").
pub type Memory = GuestMemoryMmap<DirtyLog>;

/// The handle through which the session swaps [`Memory`] when the front end sends a new table.
pub type SharedMemory = GuestMemoryAtomic<Memory>;

/// The size of the huge pages that `file` is made of, if it is on hugetlbfs. The kernel rounds a length up to usual
/// pages by itself; to these it does when it maps, and then refuses to unmap or replace a part of one.
///
/// # Errors
/// fstatfs(2)'s.
pub(crate) fn huge_page(file: impl AsFd) -> io::Result<Option<u64>> {
    const HUGETLBFS: u64 = 0x9584_58f6;
    let stat = fstatfs(file)?;
    let is_huge = u64::try_from(stat.f_type).is_ok_and(|kind| kind == HUGETLBFS);
    let page = u64::try_from(stat.f_bsize).unwrap_or(0);
    Ok((is_huge && page.is_power_of_two()).then_some(page))
}

/// One memory table held mapped by a queue's thread.
///
/// Everything that points into guest memory ([`crate::queue::Buffers`]) keeps a clone, so the
/// mapping outlives every operation on it, whatever the front end does meanwhile. A file that it cuts
/// short leaves bytes of no meaning, and [`is_lost`](Self::is_lost) tells of it. Cloning costs a
/// non-atomic increment; the type is not `Send` on purpose.
#[derive(Clone, Debug)]
pub struct PinnedMemory(Rc<GuardedMemory>);

impl PinnedMemory {
    /// Pins the table that is current now.
    ///
    /// # Errors
    /// When more regions are mapped than can be guarded.
    pub fn current(memory: &SharedMemory) -> io::Result<Self> {
        let guarded = GuardedMemory::new(memory.memory().into_inner())?;
        Ok(Self(Rc::new(guarded)))
    }

    /// Marks `len` bytes at `addr` as written in the front end's dirty log, if there is one.
    pub fn mark_dirty(&self, addr: GuestAddress, len: usize) {
        let (mut addr, mut left) = (addr, len);
        while let (Some((region, start)), true) = (self.to_region_addr(addr), left > 0) {
            let here = usize::try_from(region.len() - start.0)
                .unwrap_or(usize::MAX)
                .min(left);
            region
                .bitmap()
                .mark_dirty(usize::try_from(start.0).unwrap_or(usize::MAX), here);
            left -= here;
            match addr.checked_add(here as u64) {
                Some(next) => addr = next,
                None => return,
            }
        }
    }

    /// Pins `memory`.
    ///
    /// # Errors
    /// As [`current`](Self::current).
    pub fn new(memory: Memory) -> io::Result<Self> {
        Ok(Self(Rc::new(GuardedMemory::new(Arc::new(memory))?)))
    }

    /// Whether the front end took memory of the table away, and something of ours has touched it since.
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }
}

impl Deref for PinnedMemory {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        self.0.memory()
    }
}
