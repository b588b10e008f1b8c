//! Network → guest.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use vhost_daemon::queue::Chain;
use vhost_daemon::sys::Buffers;
use vhost_daemon::worker::{Context, WatchId};

use crate::backend::{FrameSource, Port, PortError};
use crate::features::Negotiated;
use crate::header::{FLAGS_OFFSET, HeaderLen, MAX_FRAME, NUM_BUFFERS_OFFSET};
use crate::metrics::{DropCause, FrameMetrics};
use crate::station::Station;
use crate::sys::Scatter;

use super::held::HeldBuffers;
use super::patience::Patience;

/// The worker of a receive queue: each frame is read straight into guest memory.
///
/// Buffers are popped ahead, enough for the longest frame, and kept from frame to frame. What
/// they cannot hold lands in memory of our own and is copied as soon as the guest offers more; a
/// guest that does not loses the frame, and the next long ones at once.
pub struct Receive<P: Port> {
    station: Arc<Station<P>>,
    lane: Arc<P::Lane>,
    pair: usize,
    agreed: Negotiated,
    metrics: FrameMetrics,
    /// Buffers popped and not yet filled, oldest first.
    held: HeldBuffers,
    largest: usize,
    spill: Box<[u8]>,
    /// A frame that was read and waits for more buffers.
    landed: Option<Landed>,
    patience: Patience,
    /// The last wait for buffers was in vain, and none has come since.
    in_vain: bool,
    watch: Option<WatchId>,
    /// Frames may wait at the port.
    expecting: bool,
}

/// A frame with its header: its first `in_guest` bytes lie in held buffers, the rest is spilled.
#[derive(Clone, Copy)]
struct Landed {
    len: usize,
    in_guest: usize,
    since: Instant,
}

impl<P: Port> Receive<P> {
    /// The worker of pair `pair`.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(crate) fn new(
        station: Arc<Station<P>>,
        lane: Arc<P::Lane>,
        pair: usize,
        agreed: Negotiated,
        metrics: FrameMetrics,
    ) -> io::Result<Self> {
        Ok(Self {
            largest: agreed.largest_received(station.port().mtu()),
            station,
            lane,
            pair,
            agreed,
            metrics,
            held: HeldBuffers::default(),
            spill: vec![0; HeaderLen::Modern.bytes() + MAX_FRAME].into_boxed_slice(),
            landed: None,
            patience: Patience::new()?,
            in_vain: false,
            watch: None,
            expecting: true,
        })
    }

    pub(super) fn start(&mut self, cx: &mut Context<()>) -> io::Result<()> {
        self.watch = Some(cx.watch(&self.lane.readable())?);
        // Its end only has to wake the thread: `finish` looks at the clock.
        cx.watch(&self.patience)?;
        self.station.set_receiving(self.pair, true);
        Ok(())
    }

    pub(super) fn ready(&mut self, watch: WatchId) {
        self.expecting |= self.watch == Some(watch);
    }

    /// While no frame waits, buffers are of no use.
    pub(super) fn wants_buffers(&self) -> bool {
        self.expecting && (self.held.is_empty() || self.landed.is_some())
    }

    /// Delivers up to a batch of frames; returns how many came.
    pub(super) fn turn(&mut self, cx: &mut Context<()>) -> usize {
        let mut frames = 0;
        while self.expecting && frames < Context::<()>::BATCH && self.next_frame(cx) {
            frames += 1;
        }
        frames
    }

    /// Gives the buffers back to the available ring, newest first. Behind a faulty one that was
    /// answered in between the older ones cannot go back, or the ring would give that one out
    /// once more: they are completed with nothing in them.
    pub(super) fn stop(&mut self, cx: &mut Context<()>) {
        self.station.set_receiving(self.pair, false);
        if self.landed.take().is_some() {
            self.metrics.dropped(DropCause::Stopped);
        }
        while let Some(held) = self.held.take_newest() {
            if held.next_avail == cx.queue().next_avail() {
                cx.unpop(held.token);
            } else {
                cx.complete(held.token, 0);
            }
        }
    }

    /// Takes one frame from the port, or ends the wait of the one that landed. `false` when there
    /// is no more to do for now.
    fn next_frame(&mut self, cx: &mut Context<()>) -> bool {
        self.gather(cx);
        if let Some(landed) = self.landed {
            return self.finish(cx, landed);
        }
        if self.held.is_empty() {
            // The frames wait in the port's own queue until it is full.
            return false;
        }
        // Without mergeable buffers a frame has the first chain to itself.
        let guest = self.held.space(self.agreed.mergeable());
        let mut space = Scatter::new(guest, &mut self.spill);
        let in_guest = space.guest_len();
        match self.lane.receive(&mut space) {
            Ok(len) => self.land(cx, len, in_guest),
            Err(error) => {
                self.nothing_came(cx, &error);
                false
            }
        }
    }

    /// Pops buffers until the longest frame fits or the guest has no more.
    fn gather(&mut self, cx: &mut Context<()>) {
        let wanted = self
            .landed
            .map_or(self.largest, |frame| frame.len.max(self.largest));
        while self.held.bytes() < wanted {
            if !self.held.is_empty() && !self.agreed.mergeable() {
                break;
            }
            let Some((token, chain)) = cx.pop() else {
                break;
            };
            match self.check(chain) {
                Ok(buffers) => {
                    self.in_vain = false;
                    self.held.push(token, buffers, cx.queue().next_avail());
                }
                Err(fault) => {
                    cx.guest_fault(&fault);
                    cx.complete(token, 0);
                }
            }
        }
    }

    fn check(&self, chain: Chain) -> Result<Buffers, &'static str> {
        if !chain.readable.is_empty() {
            Err("a receive buffer that the device is to read")
        } else if chain.writable.len() < self.agreed.header_len().bytes() {
            // virtio 1.2, 5.1.6.3.1: each buffer holds at least the header.
            Err("a receive buffer shorter than a frame's header")
        } else {
            Ok(chain.writable)
        }
    }

    fn land(&mut self, cx: &mut Context<()>, len: usize, in_guest: usize) -> bool {
        let since = cx.queue().now();
        let landed = Landed {
            len,
            in_guest,
            since,
        };
        if len <= in_guest {
            self.deliver(cx, landed);
        } else if !self.agreed.mergeable() || len > in_guest + self.spill.len() {
            self.metrics.dropped(DropCause::TooLong);
        } else if self.in_vain || self.patience.start().is_err() {
            self.metrics.dropped(DropCause::NoBuffers);
        } else {
            self.landed = Some(landed);
        }
        true
    }

    fn finish(&mut self, cx: &mut Context<()>, landed: Landed) -> bool {
        if landed.len <= self.held.bytes() {
            self.landed = None;
            self.deliver(cx, landed);
        } else if cx.queue().now().duration_since(landed.since) >= Patience::LIMIT {
            self.landed = None;
            self.in_vain = true;
            self.metrics.dropped(DropCause::NoBuffers);
        } else {
            return false;
        }
        true
    }

    /// Completes the buffers that the frame fills, the first one with the patched header.
    fn deliver(&mut self, cx: &mut Context<()>, frame: Landed) {
        let header_len = self.agreed.header_len().bytes();
        let spilled = frame.len.saturating_sub(frame.in_guest);
        let mut tail = self.spill.get(..spilled).unwrap_or_default();
        let count = self.held.count_for(frame.len);
        let mut at = 0;
        for index in 0..count {
            let Some(mut held) = self.held.take_oldest() else {
                break;
            };
            let used = held.len.min(frame.len - at);
            let mut skip = frame.in_guest.saturating_sub(at);
            if index == 0 {
                patch_header(&mut held.buffers, self.agreed, count);
                skip = skip.saturating_sub(header_len);
            }
            if !tail.is_empty() && at + used > frame.in_guest {
                held.buffers.advance(skip);
                let copied = held.buffers.write(tail).unwrap_or_default();
                tail = tail.get(copied..).unwrap_or_default();
            }
            at += used;
            cx.complete(held.token, u32::try_from(used).unwrap_or(u32::MAX));
        }
        let frame_len = frame.len.saturating_sub(header_len);
        self.metrics.passed(frame_len);
        cx.queue().metrics().bytes_in.add(frame_len as u64);
    }

    fn nothing_came(&mut self, cx: &mut Context<()>, error: &PortError) {
        self.expecting = false;
        match error {
            PortError::Again => {}
            PortError::Gone => self.station.lose_link(),
            error => {
                let error = io::Error::other(error.to_string());
                cx.backend_error("no frame can be received", &error);
            }
        }
    }
}

/// Sets what the port leaves open: `num_buffers`, and `flags` for a driver that did not agree on
/// checksum offload (virtio 1.2, 5.1.6.4.1). Consumes the header.
fn patch_header(buffers: &mut Buffers, agreed: Negotiated, count: usize) {
    let header_len = agreed.header_len();
    let Some(mut header) = buffers.split_front(header_len.bytes()) else {
        return;
    };
    let mut at = FLAGS_OFFSET;
    if !agreed.checksum() {
        header.write_obj(&0_u8);
        at += 1;
    }
    if header_len == HeaderLen::Modern {
        header.advance(NUM_BUFFERS_OFFSET - at);
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        header.write_obj(&count.to_le());
    }
}
