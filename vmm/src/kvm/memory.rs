//! The guest's memory, as KVM has it: in slots, whose dirty pages it tells.
#![allow(unsafe_code, reason = "guest memory is handed to KVM by address")]

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use rustix::mm::{Advice, madvise};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::error::failed;
use super::{KvmError, Vm};
use crate::memory::DirtyLog;

impl Vm {
    /// Gives the guest its memory, and keeps it out of core dumps: those hold shared memory without a name
    /// unless told not to (core(5), `coredump_filter`).
    pub(super) fn map_memory(&self) -> Result<(), KvmError> {
        for region in self.memory.mapped().iter() {
            let whole = usize::try_from(region.len()).unwrap_or(usize::MAX);
            // SAFETY: the region is a mapping of `self.memory`, which lives. What is advised changes no byte of
            // it and no access to it.
            unsafe { madvise(region.as_ptr().cast(), whole, Advice::LinuxDontDump) }
                .map_err(KvmError::Dumps)?;
        }
        self.set_slots(0).map_err(failed("give the guest memory"))
    }

    /// KVM remembers which pages the guest writes, and it itself for the guest; or no more.
    ///
    /// # Errors
    /// When it has no room for that.
    pub fn log_writes(&self, log: bool) -> Result<(), KvmError> {
        let flags = if log { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
        self.set_slots(flags)
            .map_err(failed("log which memory the guest writes"))
    }

    /// Marks in the log what was written since the last time.
    ///
    /// # Errors
    /// When KVM does not tell.
    pub fn collect_writes(&self, log: &DirtyLog) -> Result<(), KvmError> {
        for (slot, region) in (0..).zip(self.memory.mapped().iter()) {
            let len = usize::try_from(region.len()).unwrap_or(usize::MAX);
            let bitmap = self
                .fd
                .get_dirty_log(slot, len)
                .map_err(failed("tell which memory the guest wrote"))?;
            log.mark_bitmap(region.start_addr().0, &bitmap);
        }
        Ok(())
    }

    /// The same memory in the same places each time: only the flags change.
    fn set_slots(&self, flags: u32) -> Result<(), kvm_ioctls::Error> {
        for (slot, region) in (0..).zip(self.memory.mapped().iter()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the region is a mapping of `self.memory`, which is kept until the machine is
            // gone; everybody treats guest memory as shared with a guest that writes at any time.
            unsafe { self.fd.set_user_memory_region(region) }?;
        }
        Ok(())
    }
}
