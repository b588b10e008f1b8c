//! Which lanes of the port get frames.

use std::sync::{MutexGuard, PoisonError};

use super::Station;
use crate::backend::Port;

/// Which lanes get frames: those of active pairs whose receive queue runs.
pub(super) struct Pairs {
    /// How many; `None` where only the driver knows: those that it gave buffers.
    pub(super) active: Option<usize>,
    lanes: Vec<Lane>,
}

#[derive(Clone, Copy, Default)]
struct Lane {
    receiving: bool,
    /// The driver had made buffers available when the receive queue started.
    was_used: bool,
}

impl Pairs {
    /// All of so many `lanes`.
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            active: Some(lanes),
            lanes: vec![Lane::default(); lanes],
        }
    }

    /// For each lane, whether it gets frames.
    fn open(&self) -> impl Iterator<Item = bool> {
        let is_active = |index: usize, lane: &Lane| {
            let active = self.active.map(|active| index < active);
            active.unwrap_or(lane.was_used)
        };
        let lanes = self.lanes.iter().enumerate();
        lanes.map(move |(index, lane)| lane.receiving && is_active(index, lane))
    }
}

impl<P: Port> Station<P> {
    /// Receive queue `pair` starts, which the driver `was_used` to give buffers or not.
    pub fn start_receiving(&self, pair: usize, was_used: bool) {
        let lane = Lane {
            receiving: true,
            was_used,
        };
        self.set_lane(pair, lane);
    }

    /// Receive queue `pair` stops.
    pub fn stop_receiving(&self, pair: usize) {
        self.set_lane(pair, Lane::default());
    }

    fn set_lane(&self, pair: usize, lane: Lane) {
        let mut pairs = self.pairs();
        if let Some(known) = pairs.lanes.get_mut(pair) {
            *known = lane;
            self.open_lanes(&pairs);
        }
    }

    /// Queue pairs that get frames.
    pub fn pairs_in_use(&self) -> usize {
        self.pairs().open().filter(|open| *open).count()
    }

    /// Whether a receive queue runs.
    pub(super) fn receives(&self) -> bool {
        self.pairs().lanes.iter().any(|lane| lane.receiving)
    }

    pub(super) fn use_pairs(&self, count: Option<usize>) {
        let mut pairs = self.pairs();
        pairs.active = count;
        self.open_lanes(&pairs);
    }

    fn open_lanes(&self, pairs: &Pairs) {
        for (index, open) in pairs.open().enumerate() {
            if let Err(error) = self.port.open_lane(index, open)
                && let Some(suppressed) = self.refusals.permit()
            {
                tracing::error!(%error, index, open, suppressed, "a lane of the port cannot be switched");
            }
        }
    }

    pub(super) fn pairs(&self) -> MutexGuard<'_, Pairs> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
