//! A virtqueue while a worker owns it.

use std::num::Wrapping;
use std::sync::Arc;
use std::time::Instant;

use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};
use virtio_queue::QueueState;

use super::dirty::DirtyRanges;
use super::event::event_passed;
use super::{Call, Chain, ChainError, InFlightLog, QueueError, RingIdentity, Token};
use crate::memory::PinnedMemory;
use crate::metrics::QueueMetrics;
use crate::sys::SplitRing;

/// A request taken from the available ring. Its chain may be broken; the token must be completed
/// all the same.
pub type Popped = (Token, Result<Chain, ChainError>);

/// A virtqueue in the hands of its one owner, the queue's thread.
///
/// A batch of completions is published with one index store: a guest never sees half of the
/// buffers of one merged packet, and gets at most one interrupt per batch.
pub struct RunningQueue {
    ring: SplitRing,
    identity: RingIdentity,
    memory: PinnedMemory,
    call: Option<Call>,
    event_idx: bool,
    next_avail: Wrapping<u16>,
    /// Used entries written, published or not.
    next_used: Wrapping<u16>,
    /// What the guest sees as used index.
    published: Wrapping<u16>,
    in_flight: Box<[bool]>,
    in_flight_count: usize,
    /// Requests that an earlier process left in flight, newest first.
    left_over: Vec<u16>,
    /// Whether the request popped last was one of these.
    popped_left_over: bool,
    log: Option<InFlightLog>,
    /// While the front end migrates the guest.
    dirty: Option<DirtyRanges>,
    /// Time of the current loop turn: one clock read for a batch.
    now: Instant,
    /// Requests popped and completed in this turn: their time is known when the guest can see them.
    done_at_once: u64,
    /// Requests completed since the last publication: counted then, all at once.
    completed: u64,
    metrics: Arc<QueueMetrics>,
}

impl RunningQueue {
    /// Takes over a ring as the session configured it. With a `log`, requests that an earlier
    /// process left in flight on this ring are popped first, and the ring goes on behind them
    /// wherever the front end says.
    ///
    /// # Errors
    /// When the rings do not lie inside `memory`.
    pub fn new(
        state: &QueueState,
        memory: PinnedMemory,
        call: Option<Call>,
        metrics: Arc<QueueMetrics>,
        mut log: Option<InFlightLog>,
    ) -> Result<Self, QueueError> {
        let ring = SplitRing::resolve(state, &memory).ok_or(QueueError::BadRings)?;
        let identity = RingIdentity::of(state, &memory);
        let mut next_avail = Wrapping(state.next_avail);
        let mut left_over = Vec::new();
        if let Some(log) = &mut log {
            left_over = log.attach(
                &identity,
                state.size,
                state.next_used,
                ring.available_index(),
            );
            if let Ok(count @ 1..) = u16::try_from(left_over.len()) {
                next_avail = Wrapping(state.next_used) + Wrapping(count);
            }
            left_over.reverse();
        }
        Ok(Self {
            in_flight: vec![false; usize::from(ring.size())].into_boxed_slice(),
            in_flight_count: 0,
            event_idx: state.event_idx_enabled,
            next_avail,
            left_over,
            popped_left_over: false,
            log,
            dirty: None,
            next_used: Wrapping(state.next_used),
            published: Wrapping(state.next_used),
            now: Instant::now(),
            done_at_once: 0,
            completed: 0,
            identity,
            ring,
            memory,
            call,
            metrics,
        })
    }

    /// Marks what is written from now on in the front end's dirty log (`VHOST_F_LOG_ALL`).
    pub fn log_writes(&mut self, ring: &QueueState) {
        self.dirty = Some(DirtyRanges::new(ring));
    }

    /// The next request the guest made available, if any. Its chain may turn out broken: the
    /// token must be completed even so.
    ///
    /// # Errors
    /// When the ring itself is broken: nothing more can be taken from it.
    #[inline(always)]
    pub fn pop(&mut self) -> Result<Option<Popped>, QueueError> {
        if let Some(head) = self.left_over.pop() {
            self.popped_left_over = true;
            return self.take(head).map(Some);
        }
        self.popped_left_over = false;
        let available = self.ring.available_index();
        let waiting = (Wrapping(available) - self.next_avail).0;
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > self.ring.size() {
            return Err(QueueError::AvailableOverrun {
                available,
                taken: self.next_avail.0,
            });
        }
        let head = self.ring.available_head(self.next_avail.0);
        let taken = self.take(head)?;
        self.next_avail += 1;
        Ok(Some(taken))
    }

    #[inline(always)]
    fn take(&mut self, head: u16) -> Result<Popped, QueueError> {
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
        if let Some(log) = &mut self.log {
            log.taken(head);
        }
        self.in_flight_count += 1;
        let written = self.dirty.as_mut().and_then(|dirty| dirty.of(head));
        let chain = Chain::walk(&self.ring, head, &self.memory, written);
        Ok((Token::new(head, self.now), chain))
    }

    /// Gives a request back to the available ring as if it had not been popped. Only the one
    /// popped last can be given back, and its chain is walked again by the next pop. One that an earlier
    /// process left is never given back behind others: it has no place in the ring any more.
    pub fn unpop(&mut self, token: Token) {
        let head = token.redeem();
        self.release(head);
        if let Some(log) = &mut self.log {
            log.given_back(head);
        }
        if self.popped_left_over {
            self.left_over.push(head);
        } else {
            self.next_avail -= 1;
        }
    }

    /// Puts a request into the used ring: `written` bytes of its writable buffers were filled. The
    /// guest sees it with the next [`publish`](Self::publish).
    pub fn complete(&mut self, token: Token, written: u32) {
        if token.popped() == self.now {
            self.done_at_once += 1;
        } else {
            let latency = self.now.saturating_duration_since(token.popped());
            self.metrics.latency.record(latency, 1);
        }
        self.completed += 1;
        let head = token.redeem();
        self.release(head);
        if let Some(dirty) = &mut self.dirty {
            dirty.completed(head, &self.memory);
        }
        self.ring.write_used(self.next_used.0, head, written);
        self.next_used += 1;
        if let Some(log) = &mut self.log {
            log.completed(head);
        }
    }

    /// Shows the guest everything completed so far, and interrupts it if it asked for that.
    pub fn publish(&mut self) {
        if self.next_used == self.published {
            return;
        }
        let before = std::mem::replace(&mut self.published, self.next_used);
        if let Some(log) = &self.log {
            log.publishing(before.0, self.next_used.0);
        }
        self.metrics
            .requests
            .add(std::mem::take(&mut self.completed));
        self.ring.publish_used(self.next_used.0);
        if let Some(dirty) = &self.dirty {
            dirty.used_ring_written(&self.memory);
        }
        if let Some(log) = &mut self.log {
            log.published(self.next_used.0);
        }
        // The index must be visible before the guest's wish for an interrupt is read.
        SplitRing::barrier();
        if self.interrupt_wanted(before) {
            self.interrupt();
        }
        let at_once = std::mem::take(&mut self.done_at_once);
        if at_once > 0 {
            self.metrics.latency.record(self.now.elapsed(), at_once);
        }
    }

    /// virtio 1.2, 2.7.7.2 and 2.7.10.1: whether the driver wants to hear of the entries since
    /// `before`.
    fn interrupt_wanted(&self, before: Wrapping<u16>) -> bool {
        if self.event_idx {
            return event_passed(self.ring.used_event(), before.0, self.next_used.0);
        }
        u32::from(self.ring.available_flags()) & VRING_AVAIL_F_NO_INTERRUPT == 0
    }

    /// Interrupts the guest whether it asked or not.
    pub fn interrupt(&self) {
        if let Some(call) = &self.call {
            self.metrics.interrupts.add(1);
            if let Err(error) = call.signal() {
                tracing::debug!(%error, "the call descriptor cannot be signalled");
            }
        }
    }

    /// Asks the guest for kicks from here on; `true` if requests have come in meanwhile.
    pub fn enable_kicks(&mut self) -> bool {
        if self.event_idx {
            self.ring.set_available_event(self.next_avail.0);
        } else {
            self.ring.set_used_flags(0);
        }
        if let Some(dirty) = &self.dirty {
            dirty.used_ring_written(&self.memory);
        }
        // The guest must see the wish before its index is looked at for the last time.
        SplitRing::barrier();
        self.has_available()
    }

    /// Tells the guest that kicks are not needed for now. With `EVENT_IDX` there is nothing to
    /// tell: it kicks once for each time it was asked.
    pub fn disable_kicks(&mut self) {
        if !self.event_idx {
            self.ring
                .set_used_flags(u16::try_from(VRING_USED_F_NO_NOTIFY).unwrap_or(1));
        }
    }

    /// Whether there are requests that were not popped yet.
    pub fn has_available(&self) -> bool {
        !self.left_over.is_empty() || self.ring.available_index() != self.next_avail.0
    }

    /// How many requests an earlier process left, and were not popped yet.
    pub fn left_over(&self) -> usize {
        self.left_over.len()
    }

    /// Whether the request popped last is one that an earlier process left.
    pub fn popped_left_over(&self) -> bool {
        self.popped_left_over
    }

    /// Whether the next process learns which requests are in flight. If not, it goes on behind the used
    /// index: right if requests are published in the order in which they were made available.
    pub fn remembers(&self) -> bool {
        self.log.is_some()
    }

    /// Which ring this is.
    pub fn identity(&self) -> &RingIdentity {
        &self.identity
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
        self.next_avail.0
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
    pub(crate) fn set_call(&mut self, call: Option<Call>) {
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
