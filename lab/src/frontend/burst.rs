//! A driver in a hurry, for measuring: one buffer for each descriptor, laid out once, polled.

use std::collections::VecDeque;

use super::exchange::length;
use super::{DriverQueue, Error, GuestAddress, Result, Segment};

/// A queue whose descriptor N is buffer N. Offering and reaping neither allocate nor lock.
#[derive(Debug)]
pub struct Burst {
    queue: DriverQueue,
    buffers: Vec<GuestAddress>,
    /// Descriptors that the device does not have.
    idle: VecDeque<u16>,
}

/// A buffer that the device handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Its number.
    pub slot: u16,
    /// Bytes that the device wrote.
    pub len: u32,
}

impl Burst {
    /// Takes over a transmit queue that has seen no chain: `content` makes what buffer N says, its
    /// header included.
    ///
    /// # Errors
    /// When guest memory is full.
    pub fn transmit(queue: DriverQueue, content: impl Fn(u16) -> Vec<u8>) -> Result<Self> {
        let place = |queue: &DriverQueue, slot| {
            let bytes = content(slot);
            let at = queue.memory().alloc(bytes.len(), 64)?;
            queue.memory().write(at, &bytes)?;
            Ok((at, Segment::readable(at, length(bytes.len())?)))
        };
        Self::new(queue, place)
    }

    /// Takes over a receive queue that has seen no chain, with buffers of `len` bytes.
    ///
    /// # Errors
    /// When guest memory is full.
    pub fn receive(queue: DriverQueue, len: usize) -> Result<Self> {
        let place = |queue: &DriverQueue, _| {
            let at = queue.memory().alloc(len, 64)?;
            Ok((at, Segment::writable(at, length(len)?)))
        };
        Self::new(queue, place)
    }

    fn new(
        queue: DriverQueue,
        place: impl Fn(&DriverQueue, u16) -> Result<(GuestAddress, Segment)>,
    ) -> Result<Self> {
        let mut buffers = Vec::new();
        for slot in 0..queue.size() {
            let (at, segment) = place(&queue, slot)?;
            queue.ring.set_descriptor(slot, segment.descriptor(None))?;
            buffers.push(at);
        }
        let idle = (0..queue.size()).collect();
        Ok(Self {
            queue,
            buffers,
            idle,
        })
    }

    /// Buffers that the device does not have.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// The buffer that is offered next: the one that has been idle longest.
    #[must_use]
    pub fn next(&self) -> Option<u16> {
        self.idle.front().copied()
    }

    /// Makes up to `most` buffers available and kicks if the device asked for that; returns how many.
    ///
    /// # Errors
    /// When the eventfd cannot be written.
    pub fn offer(&mut self, most: usize) -> Result<usize> {
        let count = most.min(self.idle.len());
        for _ in 0..count {
            if let Some(slot) = self.idle.pop_front() {
                self.queue.stage(slot)?;
            }
        }
        if count > 0 {
            self.queue.kick()?;
        }
        Ok(count)
    }

    /// Takes back what the device is done with, oldest first; returns how many.
    ///
    /// # Errors
    /// When the device hands back what was never there.
    pub fn reap(&mut self, mut each: impl FnMut(&Self, Reaped)) -> Result<usize> {
        let count = self.queue.pending()?;
        for _ in 0..count {
            let (id, len) = self.queue.ring.used_entry(self.queue.used_next)?;
            self.queue.used_next = self.queue.used_next.wrapping_add(1);
            let slot = u16::try_from(id).ok();
            let slot = slot.filter(|slot| usize::from(*slot) < self.buffers.len());
            let slot = slot.ok_or(Error::UnknownUsed {
                queue: self.queue.index,
                id,
            })?;
            each(self, Reaped { slot, len });
            self.idle.push_back(slot);
        }
        Ok(usize::from(count))
    }

    /// The le16 at `offset` of a buffer.
    #[must_use]
    pub fn word(&self, slot: u16, offset: u64) -> u16 {
        let at = self.buffers.get(usize::from(slot)).copied();
        let word = at.map(|at| self.queue.memory().load(GuestAddress(at.0 + offset)));
        u16::from_le(word.and_then(Result::ok).unwrap_or_default())
    }
}
