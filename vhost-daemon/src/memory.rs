//! The guest's memory as a front end shared it.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

/// Guest memory: the regions of one `SET_MEM_TABLE` (or of the `ADD_MEM_REG`s so far), mapped.
pub type Memory = GuestMemoryMmap<()>;

/// The handle through which the session swaps [`Memory`] when the front end sends a new table.
pub type SharedMemory = GuestMemoryAtomic<Memory>;

/// One memory table held mapped by a queue's thread.
///
/// Everything that points into guest memory ([`crate::queue::Buffers`]) keeps a clone, so the
/// mapping outlives every operation on it, whatever the front end does meanwhile. Cloning costs
/// a non-atomic increment; the type is not `Send` on purpose.
#[derive(Clone, Debug)]
#[expect(
    clippy::redundant_allocation,
    reason = "cloned for each request: no atomic operation"
)]
pub struct PinnedMemory(Rc<Arc<Memory>>);

impl PinnedMemory {
    /// Pins the table that is current now.
    pub fn current(memory: &SharedMemory) -> Self {
        Self(Rc::new(memory.memory().into_inner()))
    }

    /// Pins `memory`.
    pub fn new(memory: Memory) -> Self {
        Self(Rc::new(Arc::new(memory)))
    }
}

impl Deref for PinnedMemory {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.0
    }
}
