//! A virtqueue while a worker owns it.

use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use thiserror::Error;
use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vmm_sys_util::event::EventNotifier;

use super::{Chain, ChainError, Token};
use crate::memory::PinnedMemory;
use crate::metrics::QueueMetrics;

/// A fault of the guest that makes the whole queue unusable until it is set up again.
#[derive(Debug, Error)]
pub enum QueueError {
    /// The available index moved further than the queue has entries (virtio 1.2, 2.7.13.3.1).
    #[error("available index runs ahead of the queue's size")]
    AvailableOverrun,
    /// An available entry names a descriptor beyond the table.
    #[error("available entry names descriptor {head}, the queue has {size}")]
    HeadOutOfRange {
        /// The entry's descriptor index.
        head: u16,
        /// Queue size.
        size: u16,
    },
    /// A chain was made available a second time while the device still owns it.
    #[error("descriptor {0} was made available while still in flight")]
    HeadInFlight(u16),
    /// The rings do not lie in guest memory, or a size or alignment is wrong.
    #[error("rings are not inside guest memory")]
    RingsOutOfMemory,
    /// The used or available ring could not be accessed.
    #[error("ring memory cannot be accessed")]
    Memory(#[from] GuestMemoryError),
}

/// A request taken from the available ring. Its chain may be broken; the token must be completed
/// all the same.
pub type Popped = (Token, Result<Chain, ChainError>);

/// A virtqueue in the hands of its one owner, the queue's thread.
///
/// `virtio-queue` keeps the ring's geometry and walks the available side. The used side is
/// written here, so that a batch of completions is published with one index store: a guest never
/// sees half of the buffers of one merged packet, and gets at most one interrupt per batch.
pub struct RunningQueue {
    ring: Queue,
    memory: PinnedMemory,
    call: Option<EventNotifier>,
    /// Used entries written, published or not.
    next_used: Wrapping<u16>,
    /// What the guest sees as used index.
    published: Wrapping<u16>,
    in_flight: Box<[bool]>,
    in_flight_count: usize,
    /// Time of the current loop turn: one clock read for a batch.
    now: Instant,
    metrics: Arc<QueueMetrics>,
}

impl RunningQueue {
    /// Takes over a ring as the session configured it.
    ///
    /// # Errors
    /// When the rings do not lie inside `memory`.
    pub fn new(
        state: QueueState,
        memory: PinnedMemory,
        call: Option<EventNotifier>,
        metrics: Arc<QueueMetrics>,
    ) -> Result<Self, QueueError> {
        let ring = Queue::try_from(state).map_err(|_| QueueError::RingsOutOfMemory)?;
        if !ring.is_valid(&*memory) {
            return Err(QueueError::RingsOutOfMemory);
        }
        let next_used = Wrapping(ring.next_used());
        Ok(Self {
            in_flight: vec![false; usize::from(ring.size())].into_boxed_slice(),
            in_flight_count: 0,
            published: next_used,
            next_used,
            now: Instant::now(),
            ring,
            memory,
            call,
            metrics,
        })
    }

    /// The next request the guest made available, if any. Its chain may turn out broken: the
    /// token must be completed even so.
    ///
    /// # Errors
    /// When the ring itself is broken: nothing more can be taken from it.
    pub fn pop(&mut self) -> Result<Option<Popped>, QueueError> {
        let memory = &*self.memory;
        let mut available = self
            .ring
            .iter(memory)
            .map_err(|_| QueueError::AvailableOverrun)?;
        let Some(descriptors) = available.next() else {
            return Ok(None);
        };
        let head = descriptors.head_index();
        match self.in_flight.get_mut(usize::from(head)) {
            None => {
                return Err(QueueError::HeadOutOfRange {
                    head,
                    size: self.ring.size(),
                });
            }
            Some(true) => return Err(QueueError::HeadInFlight(head)),
            Some(owned) => *owned = true,
        }
        self.in_flight_count += 1;
        let chain = Chain::validate(descriptors, &self.memory);
        self.metrics.requests.add(1);
        Ok(Some((Token::new(head, self.now), chain)))
    }

    /// Gives a request back to the available ring as if it had not been popped. Only the one
    /// popped last can be given back, and its chain is walked again by the next pop.
    pub fn unpop(&mut self, token: Token) {
        let head = token.redeem();
        self.release(head);
        self.metrics.requests.sub(1);
        self.ring.go_to_previous_position();
    }

    /// Puts a request into the used ring: `written` bytes of its writable buffers were filled. The
    /// guest sees it with the next [`publish`](Self::publish).
    ///
    /// # Errors
    /// When the used ring cannot be written.
    pub fn complete(&mut self, token: Token, written: u32) -> Result<(), QueueError> {
        self.metrics
            .latency
            .record(self.now.saturating_duration_since(token.popped()));
        let head = token.redeem();
        self.release(head);
        let slot = u64::from(self.next_used.0 % self.ring.size());
        // struct virtq_used { le16 flags; le16 idx; struct { le32 id; le32 len; } ring[]; }
        let element = GuestAddress(self.ring.used_ring() + 4 + slot * 8);
        let id_and_len = u64::from(head) | u64::from(written) << 32;
        self.memory.write_obj(id_and_len.to_le(), element)?;
        self.next_used += Wrapping(1);
        Ok(())
    }

    /// Shows the guest everything completed so far, and interrupts it if it asked for that.
    ///
    /// # Errors
    /// When ring memory cannot be accessed.
    pub fn publish(&mut self) -> Result<(), QueueError> {
        if self.next_used == self.published {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.published, self.next_used);
        let index = GuestAddress(self.ring.used_ring() + 2);
        self.memory
            .store(self.next_used.0.to_le(), index, Ordering::Release)?;
        // The index must be visible before the guest's wish for an interrupt is read.
        fence(Ordering::SeqCst);
        if self.interrupt_wanted(before)? {
            self.interrupt();
        }
        Ok(())
    }

    /// virtio 1.2, 2.7.7.2 and 2.7.10.1: whether the driver wants to hear of the entries since
    /// `before`.
    fn interrupt_wanted(&self, before: Wrapping<u16>) -> Result<bool, QueueError> {
        if self.ring.event_idx_enabled() {
            let used_event = self.ring.avail_ring() + 4 + u64::from(self.ring.size()) * 2;
            let event: u16 = self
                .memory
                .load(GuestAddress(used_event), Ordering::Relaxed)?;
            let event = Wrapping(u16::from_le(event));
            return Ok(self.next_used - event - Wrapping(1) < self.next_used - before);
        }
        let flags: u16 = self
            .memory
            .load(GuestAddress(self.ring.avail_ring()), Ordering::Relaxed)?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Interrupts the guest whether it asked or not.
    pub fn interrupt(&self) {
        if let Some(call) = &self.call {
            self.metrics.interrupts.add(1);
            if let Err(error) = call.notify() {
                tracing::debug!(%error, "the call descriptor cannot be signalled");
            }
        }
    }

    /// Asks the guest for kicks from here on; `true` if requests have come in meanwhile.
    ///
    /// # Errors
    /// When ring memory cannot be accessed.
    pub fn enable_kicks(&mut self) -> Result<bool, QueueError> {
        let memory = self.memory.clone();
        self.ring
            .enable_notification(&*memory)
            .map_err(|_| QueueError::RingsOutOfMemory)
    }

    /// Tells the guest that kicks are not needed for now.
    ///
    /// # Errors
    /// When ring memory cannot be accessed.
    pub fn disable_kicks(&mut self) -> Result<(), QueueError> {
        let memory = self.memory.clone();
        self.ring
            .disable_notification(&*memory)
            .map_err(|_| QueueError::RingsOutOfMemory)
    }

    /// Whether the guest has made requests available that were not popped yet.
    pub fn has_available(&self) -> bool {
        self.ring
            .avail_idx(&*self.memory, Ordering::Acquire)
            .is_ok_and(|index| index.0 != self.ring.next_avail())
    }

    /// How many requests were popped and not completed.
    pub fn in_flight(&self) -> usize {
        self.in_flight_count
    }

    /// Queue size in descriptors.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// The memory table this queue runs on.
    pub fn memory(&self) -> &PinnedMemory {
        &self.memory
    }

    /// This queue's counters.
    pub fn metrics(&self) -> &QueueMetrics {
        &self.metrics
    }

    /// Index of the next available entry: what `GET_VRING_BASE` answers.
    pub fn next_avail(&self) -> u16 {
        self.ring.next_avail()
    }

    /// Index of the next used entry.
    pub fn next_used(&self) -> u16 {
        self.next_used.0
    }

    /// Time of the current turn of the worker's loop.
    pub fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Replaces the call descriptor. The new one is signalled once: an interrupt that went to the
    /// old one while the front end swapped them must not be lost.
    pub(crate) fn set_call(&mut self, call: Option<EventNotifier>) {
        self.call = call;
        self.interrupt();
    }

    fn release(&mut self, head: u16) {
        if let Some(owned) = self.in_flight.get_mut(usize::from(head)) {
            *owned = false;
        }
        self.in_flight_count -= 1;
    }
}
