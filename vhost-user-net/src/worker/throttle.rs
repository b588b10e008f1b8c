//! Rate limits, as a queue's thread keeps them.

use std::time::Duration;

use vhost_daemon::worker::Context;

use crate::backend::Port;
use crate::metrics::Direction;
use crate::station::Station;

/// New limits take effect at the latest after this.
const REVIEW: Duration = Duration::from_millis(100);
/// Frames that pass between two looks at a limit.
const STEP: usize = 4;

/// Whether frames of one direction have to wait.
pub(crate) struct Throttle {
    direction: Direction,
    held_back: bool,
}

impl Throttle {
    pub(crate) fn new(direction: Direction) -> Self {
        Self {
            direction,
            held_back: false,
        }
    }

    /// Whether there is no use in frames now.
    pub(super) fn holds_back(&self) -> bool {
        self.held_back
    }

    /// How many frames may pass now, of `most` that could. With none a timer runs.
    pub(super) fn allowance<P: Port>(
        &mut self,
        cx: &mut Context<()>,
        station: &Station<P>,
        most: usize,
    ) -> usize {
        self.held_back = false;
        let limits = station.limits(self.direction);
        if !limits.is_limited() {
            return most;
        }
        if let Some(wait) = limits.wait(cx.queue().now()) {
            self.held_back = true;
            cx.wake_after(wait.min(REVIEW));
            return 0;
        }
        most.min(STEP)
    }

    /// So many frames, of so many bytes without their headers, have passed.
    pub(super) fn passed<P: Port>(&self, station: &Station<P>, frames: usize, bytes: usize) {
        let limits = station.limits(self.direction);
        if limits.is_limited() {
            limits.take_many(frames, bytes);
        }
    }
}
