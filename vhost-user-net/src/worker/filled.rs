//! Receive buffers that frames have filled and that are not the guest's yet.

use vhost_daemon::worker::Context;

use super::held::HeldBuffers;

/// A buffer with a frame, or a part of one.
#[derive(Clone, Copy, Debug)]
struct Part {
    place: u16,
    /// Bytes of it that are used.
    len: usize,
    /// The frame ends in it.
    last: bool,
}

/// Buffers in the order in which the driver is to see them.
#[derive(Default)]
pub(super) struct Filled {
    parts: Vec<Part>,
    /// The place of the one that was made available last.
    newest: Option<u16>,
}

impl Filled {
    /// Adds a buffer of which `len` bytes are used; the frame's `last` one or not.
    pub(super) fn push(&mut self, held: &HeldBuffers, place: u16, len: usize, last: bool) {
        self.parts.push(Part { place, len, last });
        if self
            .newest
            .is_none_or(|newest| held.is_older(newest, place))
        {
            self.newest = Some(place);
        }
    }

    /// Whether one was made available behind the buffer in `place`.
    pub(super) fn reach_behind(&self, held: &HeldBuffers, place: u16) -> bool {
        self.newest
            .is_some_and(|newest| held.is_older(place, newest))
    }

    /// Moves what lies behind a free buffer into it, so that those filled are the oldest ones there are: who
    /// knows only how many were used then knows which. A frame that was dropped costs the copy of one buffer.
    /// What does not fit, for a driver may have buffers of several lengths, stays where it is.
    pub(super) fn close_holes(&mut self, held: &mut HeldBuffers) {
        while let Some(free) = held.oldest()
            && self.reach_behind(held, free)
        {
            let Some(part) = self
                .parts
                .iter_mut()
                .find(|it| Some(it.place) == self.newest)
            else {
                return;
            };
            let room = held.room(&[free]);
            // Only a frame's last buffer may be used in part (virtio 1.2, 5.1.6.4).
            if !(room == part.len || (part.last && room > part.len)) {
                return;
            }
            held.exchange_oldest(part.place, part.len);
            part.place = free;
            let places = self.parts.iter().map(|part| part.place);
            self.newest = places.reduce(|newest, place| match held.is_older(newest, place) {
                true => place,
                false => newest,
            });
        }
    }

    /// Completes all of them.
    pub(super) fn complete(&mut self, cx: &mut Context<()>, held: &mut HeldBuffers) {
        for part in self.parts.drain(..) {
            if let Some(token) = held.fill(part.place) {
                cx.complete(token, u32::try_from(part.len).unwrap_or(u32::MAX));
            }
        }
        self.newest = None;
    }
}
