//! Network → guest.

mod gather;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use memmap2::MmapMut;
use smallvec::SmallVec;
use vhost_daemon::worker::{Context, WatchId};

use crate::backend::{FrameSource, Port, PortError};
use crate::features::Negotiated;
use crate::filter::{FRONT, FilterView};
use crate::header::{HeaderLen, MAX_FRAME};
use crate::metrics::{Direction, DropCause, FrameMetrics};
use crate::station::Station;
use crate::sys::{FrameBatch, Scatter};

use super::depth::Depth;
use super::filled::Filled;
use super::held::{Allotment, HeldBuffers};
use super::landed::Landed;
use super::patience::Patience;
use super::throttle::Throttle;

/// Room for what the guest's buffers do not hold of one frame.
const SPILL: usize = HeaderLen::Modern.bytes() + MAX_FRAME;

/// The worker of a receive queue: frames are read straight into guest memory, many at a time.
///
/// Buffers are popped ahead, and each frame of a batch is given as many as frames of late have needed.
/// What they cannot hold lands in memory of our own and is copied into further buffers; a guest that
/// offers none for too long loses the frame, and the next long ones at once.
///
/// Frames of a batch leave buffers unused between them. Where the queue is not remembered, the next process
/// would take those for used and the others for free: there the used ones are always the oldest.
pub struct Receive<P: Port> {
    station: Arc<Station<P>>,
    source: P::Source,
    pair: usize,
    agreed: Negotiated,
    metrics: FrameMetrics,
    /// Buffers popped and not given to a frame.
    held: HeldBuffers,
    /// Those that have been filled and not completed yet.
    filled: Filled,
    /// Buffers complete in the order in which they were made available.
    ordered: bool,
    depth: Depth,
    /// Fresh from the kernel: pages that no frame spills into cost nothing, and all go with the worker. An
    /// allocator would keep them, in as many places as threads came and went.
    spill: MmapMut,
    /// Frames that were read, oldest first.
    landed: VecDeque<Landed>,
    patience: Patience,
    /// The last wait for buffers was in vain, and none has come since.
    in_vain: bool,
    /// The oldest frame waits for more buffers.
    waiting: bool,
    watch: Option<WatchId>,
    /// Frames may wait at the port; if not, it is watched, has failed or has gone.
    expecting: bool,
    failed: bool,
    throttle: Throttle,
    wishes: FilterView,
    /// Frames and their bytes that were delivered in this turn and not counted yet.
    passed: (usize, usize),
}

impl<P: Port> Receive<P> {
    /// The worker of pair `pair`.
    ///
    /// # Errors
    /// When the process is out of descriptors or memory.
    pub(crate) fn new(
        station: Arc<Station<P>>,
        source: P::Source,
        pair: usize,
        agreed: Negotiated,
        metrics: FrameMetrics,
    ) -> io::Result<Self> {
        let largest = agreed.largest_received(station.port().mtu());
        let wishes = station.filter().view();
        Ok(Self {
            depth: Depth::new(largest),
            station,
            source,
            pair,
            agreed,
            metrics,
            held: HeldBuffers::default(),
            filled: Filled::default(),
            ordered: true,
            spill: MmapMut::map_anon(SPILL * FrameBatch::MOST)?,
            landed: VecDeque::new(),
            patience: Patience::new()?,
            in_vain: false,
            waiting: false,
            watch: None,
            expecting: true,
            failed: false,
            throttle: Throttle::new(Direction::Receive),
            wishes,
            passed: (0, 0),
        })
    }

    pub(super) fn start(&mut self, cx: &mut Context<()>) -> io::Result<()> {
        self.watch = Some(cx.watch_on_demand(&self.source.readable())?);
        // Its end only has to wake the thread: `deliver` looks at the clock, and `ready` tries a port
        // that failed once more.
        cx.watch(&self.patience)?;
        self.ordered = !cx.queue().remembers();
        let was_used = cx.queue().next_avail() != 0 || cx.queue().has_available();
        // Frames may be long in coming, and a stop has to find these taken.
        // Faulty chains end a pop, too: it goes on while there is progress.
        let mut before = usize::MAX;
        while (1..before).contains(&cx.queue().left_over()) {
            before = cx.queue().left_over();
            self.pop(cx);
        }
        self.station.start_receiving(self.pair, was_used);
        Ok(())
    }

    pub(super) fn ready(&mut self, watch: WatchId) {
        self.expecting |= self.watch == Some(watch) || std::mem::take(&mut self.failed);
    }

    /// While no frame waits, buffers are of no use.
    pub(super) fn wants_buffers(&self) -> bool {
        self.waiting || (self.expecting && self.held.is_empty() && !self.throttle.holds_back())
    }

    /// Delivers a batch of frames or more; returns how many.
    pub(super) fn turn(&mut self, cx: &mut Context<()>) -> usize {
        let frames = self.deliver_batch(cx);
        if let (passed @ 1.., bytes) = std::mem::take(&mut self.passed) {
            self.metrics.passed(passed, bytes);
            cx.queue().metrics().bytes_in.add(bytes as u64);
        }
        frames
    }

    fn deliver_batch(&mut self, cx: &mut Context<()>) -> usize {
        let mut frames = 0;
        loop {
            frames += self.deliver(cx);
            if frames >= FrameBatch::MOST || !self.landed.is_empty() || !self.receive(cx) {
                return frames;
            }
        }
    }

    /// Gives the buffers back to the available ring, newest first. Behind one that was used, or was
    /// faulty and answered, in between the older ones cannot go back, or the ring would give that one
    /// out once more: they are completed with nothing in them, as those that an earlier process left.
    pub(super) fn stop(&mut self, cx: &mut Context<()>) {
        self.station.stop_receiving(self.pair);
        for landed in std::mem::take(&mut self.landed) {
            self.metrics.dropped(DropCause::Stopped);
            self.held.put_back(&landed.buffers);
        }
        while let Some(held) = self.held.take_newest() {
            if !held.left_over && held.next_avail == cx.queue().next_avail() {
                cx.unpop(held.token);
            } else {
                cx.complete(held.token, 0);
            }
        }
    }

    /// Takes a batch of frames from the port. `false` when none came.
    fn receive(&mut self, cx: &mut Context<()>) -> bool {
        if !self.expecting {
            return false;
        }
        let most = self
            .throttle
            .allowance(cx, &self.station, self.depth.frames());
        if most == 0 {
            return false;
        }
        let most = most.min(self.batch(cx));
        self.gather(cx, most);
        let allotments = self.allot(most);
        if allotments.is_empty() {
            // The frames wait in the port's own queue until it is full.
            return false;
        }
        let mut lengths: SmallVec<[usize; FrameBatch::MOST]> = SmallVec::new();
        lengths.resize(allotments.len(), 0);
        let spills = self.spill.chunks_mut(SPILL);
        let places = allotments.iter().zip(spills);
        let mut places: SmallVec<[Scatter<'_>; 16]> = places
            .map(|(allotment, spill)| {
                let buffers = allotment
                    .iter()
                    .filter_map(|place| self.held.buffers(*place));
                Scatter::new(buffers, spill)
            })
            .collect();
        let more = self.source.receive(&mut places, &mut |index, len| {
            if let Some(place) = lengths.get_mut(index) {
                *place = len;
            }
        });
        let in_guest: SmallVec<[usize; FrameBatch::MOST]> =
            places.iter().map(Scatter::guest_len).collect();
        drop(places);
        let came = lengths.iter().filter(|len| **len > 0).count();
        self.depth.came(came, lengths.len());
        let since = cx.queue().now();
        let mut unused = SmallVec::<[Allotment; FrameBatch::MOST]>::new();
        for (index, buffers) in allotments.into_iter().enumerate() {
            let len = lengths.get(index).copied().unwrap_or_default();
            if len == 0 {
                unused.push(buffers);
                continue;
            }
            self.depth.saw(len);
            self.landed.push_back(Landed {
                buffers,
                in_guest: in_guest.get(index).copied().unwrap_or_default(),
                len,
                spill: index,
                since,
            });
        }
        // The newest first: each belongs before all that are there.
        unused.iter().rev().for_each(|it| self.held.put_back(it));
        match more {
            Ok(true) => {}
            Ok(false) => self.await_frames(cx),
            Err(error) => self.nothing_came(cx, &error),
        }
        came > 0
    }

    /// Gives landed frames to the guest, oldest first, until one lacks buffers; returns how many.
    fn deliver(&mut self, cx: &mut Context<()>) -> usize {
        let frames = self.fill_landed(cx);
        if self.ordered {
            self.filled.close_holes(&mut self.held);
        }
        self.filled.complete(cx, &mut self.held);
        frames
    }

    fn fill_landed(&mut self, cx: &mut Context<()>) -> usize {
        let mut frames = 0;
        self.waiting = false;
        while let Some(mut frame) = self.landed.pop_front() {
            frames += 1;
            if !self.is_wanted(&frame) {
                self.held.put_back(&frame.buffers);
                continue;
            }
            match self.try_deliver(cx, &mut frame) {
                Outcome::Delivered => self.fill(frame),
                Outcome::Dropped(cause) => {
                    self.metrics.dropped(cause);
                    self.held.put_back(&frame.buffers);
                }
                Outcome::Waits => {
                    self.waiting = true;
                    self.landed.push_front(frame);
                    return frames - 1;
                }
            }
        }
        frames
    }

    /// Whether the link is up and the driver wants the frame; if not, it is counted.
    fn is_wanted(&mut self, frame: &Landed) -> bool {
        if self.station.is_unplugged() {
            self.metrics.dropped(DropCause::Unplugged);
            return false;
        }
        let wishes = self.wishes.current(self.station.filter());
        if wishes.want_all() {
            return true;
        }
        let header_len = self.agreed.header_len().bytes();
        let spill = self.spill.get(frame.spill * SPILL..).unwrap_or_default();
        let mut front = [0; HeaderLen::Modern.bytes() + FRONT];
        frame.front(&self.held, spill, &mut front);
        let wanted = front
            .get(header_len..)
            .and_then(<[u8]>::first_chunk)
            .is_some_and(|front| wishes.want(front));
        if !wanted {
            self.metrics.dropped(DropCause::Unwanted);
        }
        wanted
    }

    /// Gives a copy to whoever wants one.
    fn copy(&self, frame: &Landed, header_len: usize) {
        let taps = self.station.taps();
        if !taps.is_active() {
            return;
        }
        let spill = self.spill.get(frame.spill * SPILL..).unwrap_or_default();
        let mut copy = vec![0; header_len + taps.snap()];
        let count = frame.front(&self.held, spill, &mut copy);
        let copy = copy.get(header_len..count).unwrap_or_default();
        taps.passed(copy, frame.len.saturating_sub(header_len));
    }

    fn try_deliver(&mut self, cx: &mut Context<()>, frame: &mut Landed) -> Outcome {
        if frame.len > frame.in_guest {
            if !self.agreed.mergeable() || frame.len > frame.in_guest + SPILL {
                return Outcome::Dropped(DropCause::TooLong);
            }
            let mut room = self.held.room(&frame.buffers);
            while room < frame.len {
                if self.held.is_empty() && !self.pop(cx) {
                    return self.lacks_buffers(cx, frame);
                }
                let more = self.held.allot(frame.len - room, true);
                room += self.held.room(&more);
                frame.buffers.extend(more);
            }
        }
        Outcome::Delivered
    }

    fn lacks_buffers(&mut self, cx: &mut Context<()>, frame: &Landed) -> Outcome {
        let first = frame.buffers.first();
        if self.ordered && first.is_some_and(|it| self.filled.reach_behind(&self.held, *it)) {
            // A frame before it has taken buffers from behind this one's, which cannot stay unused.
            return Outcome::Dropped(DropCause::NoBuffers);
        }
        let over = cx.queue().now().saturating_duration_since(frame.since) >= Patience::LIMIT;
        if over || self.in_vain || self.patience.start().is_err() {
            self.in_vain = true;
            return Outcome::Dropped(DropCause::NoBuffers);
        }
        Outcome::Waits
    }

    /// Takes down the buffers that the frame fills, the first one with the patched header.
    fn fill(&mut self, frame: Landed) {
        let header_len = self.agreed.header_len().bytes();
        self.copy(&frame, header_len);
        let spill = self.spill.get(frame.spill * SPILL..).unwrap_or_default();
        let count = frame.settle(&self.held, spill, self.agreed);
        let mut left = frame.len;
        let (filled, rest) = frame.buffers.split_at(count.min(frame.buffers.len()));
        for &place in filled {
            let used = self.held.room(&[place]).min(left);
            left -= used;
            self.filled.push(&self.held, place, used, left == 0);
        }
        self.held.put_back(rest);
        let frame_len = frame.len.saturating_sub(header_len);
        self.throttle.passed(&self.station, 1, frame_len);
        self.passed.0 += 1;
        self.passed.1 += frame_len;
    }

    /// While frames come one behind the other nobody has to be told of them.
    fn await_frames(&mut self, cx: &mut Context<()>) {
        self.expecting = false;
        let awaited = self.watch.map(|watch| cx.await_input(watch));
        self.failed = !matches!(awaited, Some(Ok(()))) && self.patience.start().is_ok();
    }

    fn nothing_came(&mut self, cx: &mut Context<()>, error: &PortError) {
        self.expecting = false;
        match error {
            PortError::Again => self.await_frames(cx),
            PortError::Gone => self.station.lose_link(),
            error => {
                self.failed = self.patience.start().is_ok();
                let error = io::Error::other(error.to_string());
                cx.backend_error("no frame can be received", &error);
            }
        }
    }
}

/// What became of a frame.
enum Outcome {
    Delivered,
    Dropped(DropCause),
    Waits,
}
