//! Memory that the guest gives back (virtio 1.2, 5.5): a balloon, which somebody outside blows up, and
//! free pages, which the guest reports by itself. Either way the host has the pages until the guest
//! touches them again; then they are zero.
//!
//! Daemons have the same memory file mapped, so a hole in it is one for all.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestMemoryMmap};

use super::common::VERSION_1;
use super::in_process::{InProcess, Request, ServeError, Server};
use super::{Kind, Signals};
use crate::memory::GuestMemory;

const ENTRIES: u16 = 128;
/// Queues. Reporting follows the last of those that are there: no statistics, no hints.
const INFLATE: usize = 0;
const REPORTING: usize = 2;
/// The guest takes pages back by itself before it kills a process; it reports free pages.
const DEFLATE_ON_OOM: u64 = 1 << 2;
const PAGE_REPORTING: u64 = 1 << 5;
/// Bytes of a balloon's page, whatever the guest's are.
const PAGE: u64 = 4096;
/// Page numbers of one request at most; Linux gives 256.
const MOST_PAGES: usize = 4096;
/// Configuration: pages that we want, pages that the guest gave.
const ACTUAL: usize = 4;

/// The balloon.
#[derive(Debug)]
pub struct Balloon {
    memory: GuestMemory,
    target: AtomicU32,
    actual: AtomicU32,
    /// Bytes given back since the start, in whatever way.
    returned: AtomicU64,
    signals: Mutex<Arc<Signals>>,
}

impl Balloon {
    /// A balloon that shall have `target` bytes.
    #[must_use]
    pub fn new(memory: &GuestMemory, target: u64) -> Self {
        Self {
            memory: memory.clone(),
            target: AtomicU32::new(pages(target)),
            actual: AtomicU32::new(0),
            returned: AtomicU64::new(0),
            signals: Mutex::default(),
        }
    }

    /// Its device.
    #[must_use]
    pub fn device(self: &Arc<Self>) -> InProcess<Self> {
        InProcess::new(self.clone(), &self.memory)
    }

    /// From now on it shall have so many bytes; the guest gives or takes them as it can.
    pub fn resize(&self, target: u64) {
        self.target.store(pages(target), Ordering::Release);
        let signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        signals.config_changed();
    }

    /// Bytes that it shall have.
    #[must_use]
    pub fn target(&self) -> u64 {
        u64::from(self.target.load(Ordering::Acquire)) * PAGE
    }

    /// Bytes that it has, as the guest says.
    #[must_use]
    pub fn actual(&self) -> u64 {
        u64::from(self.actual.load(Ordering::Acquire)) * PAGE
    }

    /// Bytes that the guest gave back since the start; what it took again and gave again counts again.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.returned.load(Ordering::Relaxed)
    }

    /// What is not memory is the guest's mistake, and nobody else's.
    fn give_back(&self, address: u64, len: u64) {
        if self.memory.discard(address, len) {
            self.returned.fetch_add(len, Ordering::Relaxed);
        }
    }

    /// Page numbers of four bytes. Neighbours are given back together.
    fn inflate(&self, memory: &GuestMemoryMmap, from: Descriptor) -> Result<(), ServeError> {
        let len = usize::try_from(from.len()).unwrap_or(0).min(4 * MOST_PAGES);
        let mut bytes = vec![0; len];
        memory.read_slice(&mut bytes, from.addr())?;
        let mut numbers: Vec<u32> = bytes
            .chunks_exact(4)
            .filter_map(|bytes| bytes.try_into().ok().map(u32::from_le_bytes))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        for run in numbers.chunk_by(|one, next| next - one == 1) {
            self.give_back(u64::from(run[0]) * PAGE, run.len() as u64 * PAGE);
        }
        Ok(())
    }
}

/// A 32-bit number of pages is 16 TiB, the most memory that a guest has.
fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE).unwrap_or(u32::MAX)
}

impl Server for Balloon {
    fn kind(&self) -> Kind {
        Kind::Balloon
    }

    fn features(&self) -> u64 {
        VERSION_1 | DEFLATE_ON_OOM | PAGE_REPORTING
    }

    /// Inflate, deflate, reporting.
    fn queue_sizes(&self) -> Vec<u16> {
        vec![ENTRIES; 3]
    }

    fn config(&self) -> Vec<u8> {
        let values = [&self.target, &self.actual].map(|it| it.load(Ordering::Acquire));
        values.map(u32::to_le_bytes).concat()
    }

    fn write_config(&self, offset: usize, data: &[u8]) {
        if let (ACTUAL, Ok(actual)) = (offset, data.try_into()) {
            self.actual
                .store(u32::from_le_bytes(actual), Ordering::Release);
        }
    }

    fn attach(&self, signals: Arc<Signals>) {
        *self.signals.lock().unwrap_or_else(PoisonError::into_inner) = signals;
    }

    fn chosen(&self, features: Option<u64>) {
        if features.is_none() {
            self.actual.store(0, Ordering::Release);
        }
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(self.config())
    }

    fn load(&self, state: &[u8]) -> bool {
        let Ok([a, b, c, d, actual @ ..]) = <[u8; 8]>::try_from(state) else {
            return false;
        };
        let target = u32::from_le_bytes([a, b, c, d]);
        self.target.store(target, Ordering::Release);
        self.actual
            .store(u32::from_le_bytes(actual), Ordering::Release);
        true
    }

    fn serve(
        &self,
        queue: usize,
        request: Request<'_>,
        memory: &GuestMemory,
    ) -> Result<u32, ServeError> {
        for descriptor in request {
            match queue {
                INFLATE => self.inflate(memory.mapped(), descriptor)?,
                REPORTING => self.give_back(descriptor.addr().0, descriptor.len().into()),
                // Pages that the guest takes back are there when it touches them.
                _ => {}
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests;
