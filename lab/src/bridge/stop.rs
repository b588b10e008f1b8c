//! How lanes learn that the mount has ended.

use std::sync::atomic::{AtomicU8, Ordering};

use super::{Error, Result};
use crate::Event;

const RUN: u8 = 0;
const DRAIN: u8 = 1;
const ABORT: u8 = 2;

/// What is asked of the lanes.
#[derive(Debug)]
pub(super) struct Stop {
    state: AtomicU8,
    /// Stays signalled once it is.
    event: Event,
}

impl Stop {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            state: AtomicU8::new(RUN),
            event: Event::new().map_err(Error::os("cannot make an eventfd"))?,
        })
    }

    /// Answer what is under way, then end.
    pub(super) fn raise(&self) {
        self.set(DRAIN);
    }

    /// End.
    pub(super) fn abort(&self) {
        self.set(ABORT);
    }

    fn set(&self, state: u8) {
        self.state.fetch_max(state, Ordering::AcqRel);
        let _ = self.event.signal();
    }

    pub(super) fn is_raised(&self) -> bool {
        self.state.load(Ordering::Acquire) != RUN
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.state.load(Ordering::Acquire) == ABORT
    }

    pub(super) fn event(&self) -> &Event {
        &self.event
    }
}
