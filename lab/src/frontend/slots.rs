//! A queue for drivers in a hurry: one indirect table for each entry of the ring, laid out once.

use super::ring::{Descriptor, descriptor_flags};
use super::{DriverQueue, Error, GuestAddress, Result, Segment, Used};
use crate::Event;

/// Most buffers of a chain.
pub(crate) const SEGMENTS: usize = 8;

/// Bytes of a table's descriptor.
const TABLE_ENTRY: usize = 16;

/// A queue whose chains are numbered by slot: slot N is descriptor N of the ring and owns an
/// indirect table. Submitting neither allocates nor locks.
#[derive(Debug)]
pub(crate) struct SlotQueue {
    queue: DriverQueue,
    tables: GuestAddress,
    free: Vec<u16>,
    in_flight: Vec<bool>,
}

impl SlotQueue {
    /// Takes over a queue that has seen no chain; `INDIRECT_DESC` must be negotiated.
    ///
    /// # Errors
    /// When guest memory has no room for the tables.
    pub(crate) fn new(queue: DriverQueue) -> Result<Self> {
        let size = usize::from(queue.size());
        let tables = queue.memory().alloc(size * table_len(), 4096)?;
        Ok(Self {
            tables,
            free: (0..queue.size()).rev().collect(),
            in_flight: vec![false; size],
            queue,
        })
    }

    /// The queue, to hand to a daemon.
    pub(crate) fn queue(&self) -> &DriverQueue {
        &self.queue
    }

    /// A slot that the device does not have.
    pub(crate) fn take_slot(&mut self) -> Option<u16> {
        self.free.pop()
    }

    /// Gives a slot back that was taken and not submitted.
    pub(crate) fn return_slot(&mut self, slot: u16) {
        self.free.push(slot);
    }

    /// Slots that the device has.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.iter().filter(|it| **it).count()
    }

    /// Whether the device, and chains under way to it, have all slots.
    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Makes a chain available; [`kick`](Self::kick) shows it to the device.
    ///
    /// # Errors
    /// When the chain is empty or has more than [`SEGMENTS`] buffers.
    pub(crate) fn submit(&mut self, slot: u16, segments: &[Segment]) -> Result<()> {
        if segments.is_empty() || segments.len() > SEGMENTS {
            return Err(Error::BadSize {
                what: "chain",
                len: segments.len(),
                limit: "a slot's table has 1 to 8 descriptors",
            });
        }
        let table = GuestAddress(self.tables.0 + u64::from(slot) * table_len() as u64);
        let mut bytes = [0; SEGMENTS * TABLE_ENTRY];
        let mut len = 0_u32;
        let descriptors = bytes.chunks_exact_mut(TABLE_ENTRY);
        for ((segment, next), bytes) in segments.iter().zip(1_u16..).zip(descriptors) {
            let more = usize::from(next) < segments.len();
            bytes.copy_from_slice(&segment.descriptor(more.then_some(next)).to_bytes());
            len += 16;
        }
        self.queue
            .memory()
            .write(table, &bytes[..segments.len() * TABLE_ENTRY])?;
        let entry = Descriptor {
            addr: table.0,
            len,
            flags: descriptor_flags::INDIRECT,
            next: 0,
        };
        self.queue.ring.set_descriptor(slot, entry)?;
        self.in_flight[usize::from(slot)] = true;
        self.queue.stage(slot)
    }

    /// Shows the device what was submitted, and wakes it if it asked for that.
    ///
    /// # Errors
    /// When the eventfd cannot be written.
    pub(crate) fn kick(&mut self) -> Result<()> {
        self.queue.kick().map(drop)
    }

    /// The next slot that the device has handed back; the caller owns it until
    /// [`return_slot`](Self::return_slot).
    ///
    /// # Errors
    /// When the device hands back what it did not have.
    pub(crate) fn next_used(&mut self) -> Result<Option<(u16, Used)>> {
        if self.queue.pending()? == 0 {
            return Ok(None);
        }
        let (id, len) = self.queue.ring.used_entry(self.queue.used_next)?;
        self.queue.used_next = self.queue.used_next.wrapping_add(1);
        let slot = u16::try_from(id).ok();
        match slot.filter(|&slot| self.in_flight.get(usize::from(slot)) == Some(&true)) {
            Some(slot) => {
                self.in_flight[usize::from(slot)] = false;
                Ok(Some((slot, Used { id, len })))
            }
            None => Err(Error::UnknownUsed {
                queue: self.queue.index,
                id,
            }),
        }
    }

    /// Asks to be interrupted by what comes next. `false`: something has come already.
    ///
    /// # Errors
    /// When the eventfd cannot be read.
    pub(crate) fn may_sleep(&mut self) -> Result<bool> {
        self.queue.ask_for_interrupt()?;
        if self.queue.pending()? != 0 {
            return Ok(false);
        }
        Ok(true)
    }

    /// What the device signals.
    pub(crate) fn call(&self) -> &Event {
        &self.queue.call
    }
}

const fn table_len() -> usize {
    SEGMENTS * TABLE_ENTRY
}
