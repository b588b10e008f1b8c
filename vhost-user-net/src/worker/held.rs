//! Receive buffers popped ahead of the frames that will fill them.

use std::collections::VecDeque;

use smallvec::SmallVec;
use vhost_daemon::queue::Token;
use vhost_daemon::sys::Buffers;

/// One of them.
pub(super) struct Held {
    pub(super) token: Token,
    pub(super) buffers: Buffers,
    /// Index of the available entry behind its own; for one that an earlier process left, which has none any
    /// more, one that comes before.
    pub(super) next_avail: u16,
    /// An earlier process left it.
    pub(super) left_over: bool,
}

/// Places of the buffers that one frame may fill.
pub(super) type Allotment = SmallVec<[u16; 12]>;

/// All of them. Each stays in its place until it is filled or given back: only numbers move.
#[derive(Default)]
pub(super) struct HeldBuffers {
    places: Vec<Option<Held>>,
    vacant: Vec<u16>,
    /// Those that no frame has been given, in the order in which the guest made them available.
    queue: VecDeque<u16>,
    /// Bytes in these.
    bytes: usize,
}

impl HeldBuffers {
    /// Bytes in all that no frame has been given.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether frames have been given all there are.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many no frame has been given.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The place of the oldest that no frame has been given.
    pub(super) fn oldest(&self) -> Option<u16> {
        self.queue.front().copied()
    }

    /// Adds one that was popped just now.
    pub(super) fn push(&mut self, held: Held) {
        self.bytes += held.buffers.len();
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.places.push(None);
            // No more than a queue has entries.
            u16::try_from(self.places.len() - 1).unwrap_or(u16::MAX)
        });
        if let Some(vacant) = self.places.get_mut(usize::from(place)) {
            *vacant = Some(held);
        }
        self.queue.push_back(place);
    }

    /// The buffers in a place.
    pub(super) fn buffers(&self, place: u16) -> Option<&Buffers> {
        let held = self.places.get(usize::from(place))?.as_ref()?;
        Some(&held.buffers)
    }

    /// Bytes in some of them.
    pub(super) fn room(&self, places: &[u16]) -> usize {
        let buffers = places.iter().filter_map(|place| self.buffers(*place));
        buffers.map(Buffers::len).sum()
    }

    /// The oldest ones with `bytes` between them, or just the oldest without mergeable buffers. Fewer
    /// bytes where there are no more.
    pub(super) fn allot(&mut self, bytes: usize, mergeable: bool) -> Allotment {
        let mut allotment = Allotment::new();
        let mut room = 0;
        while room < bytes && (mergeable || allotment.is_empty()) {
            let Some(place) = self.queue.pop_front() else {
                break;
            };
            room += self.buffers(place).map_or(0, Buffers::len);
            allotment.push(place);
        }
        self.bytes -= room;
        allotment
    }

    /// Takes a filled one out: what to complete it with.
    pub(super) fn fill(&mut self, place: u16) -> Option<Token> {
        self.take(place).map(|held| held.token)
    }

    /// Copies the first `len` bytes of the buffers in `place` to the oldest that no frame has been given, which
    /// takes its part: `place` is given back.
    pub(super) fn exchange_oldest(&mut self, place: u16, len: usize) {
        let Some(oldest) = self.queue.pop_front() else {
            return;
        };
        if let (Some(from), Some(to)) = (self.buffers(place), self.buffers(oldest)) {
            from.copy_to(to, len);
            self.bytes -= to.len();
        }
        self.put_back(&[place]);
    }

    /// Whether the buffers in `place` were made available before those in `other`.
    pub(super) fn is_older(&self, place: u16, other: u16) -> bool {
        // Sixteen-bit indices that wrap: the ring is far shorter than half of that.
        self.index(place).wrapping_sub(self.index(other)) > u16::MAX / 2
    }

    /// The newest that no frame has been given, to be given back to the guest.
    pub(super) fn take_newest(&mut self) -> Option<Held> {
        let place = self.queue.pop_back()?;
        let held = self.take(place)?;
        self.bytes -= held.buffers.len();
        Some(held)
    }

    /// No frame has filled these after all.
    pub(super) fn put_back(&mut self, places: &[u16]) {
        for &place in places.iter().rev() {
            let at = self.order_of(place);
            self.bytes += self.buffers(place).map_or(0, Buffers::len);
            self.queue.insert(at, place);
        }
    }

    fn order_of(&self, place: u16) -> usize {
        let older = |other: &&u16| self.is_older(**other, place);
        self.queue.iter().take_while(older).count()
    }

    fn index(&self, place: u16) -> u16 {
        let held = self.places.get(usize::from(place));
        held.and_then(Option::as_ref)
            .map_or(0, |held| held.next_avail)
    }

    fn take(&mut self, place: u16) -> Option<Held> {
        let held = self.places.get_mut(usize::from(place))?.take()?;
        self.vacant.push(place);
        Some(held)
    }
}
