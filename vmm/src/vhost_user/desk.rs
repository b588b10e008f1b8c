//! Where a processor leaves what the driver wants, and the device's thread leaves what is.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::virtio::{Condition, SaveError, Saved, Setup, Signals};

/// Configuration writes that wait at most: a driver that writes faster loses some.
const MOST_WRITES: usize = 16;

/// Shared by the device and its thread.
#[derive(Debug)]
pub(super) struct Desk {
    state: Mutex<State>,
    /// Signalled when the processor's side changed.
    pub(super) wake: EventFd,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// What the driver wants: a running device, or one that is reset.
    pub(super) wanted: Option<Arc<Setup>>,
    /// Nothing is to be served for a while.
    pub(super) paused: bool,
    /// Counts changes of the two.
    pub(super) asked: u64,
    /// The last change that was carried out.
    pub(super) done: u64,
    /// Configuration space as the guest sees it.
    pub(super) config: Vec<u8>,
    pub(super) config_writes: VecDeque<(usize, Vec<u8>)>,
    /// Other interrupts for running queues.
    pub(super) calls: BTreeMap<usize, EventFd>,
    pub(super) signals: Arc<Signals>,
    /// The daemon is there.
    pub(super) connected: bool,
    /// How often it was lost.
    pub(super) losses: u64,
    pub(super) transfer: Option<Transfer>,
    pub(super) quit: bool,
}

/// A snapshot's wishes. Who waits for the answer may have gone.
#[derive(Debug)]
pub(super) enum Transfer {
    Save(Sender<Result<Saved, SaveError>>),
    Load {
        features: u64,
        state: Vec<u8>,
        done: Sender<Result<(), SaveError>>,
    },
    FollowLog(Sender<Result<(), SaveError>>),
}

impl Desk {
    pub(super) fn new(config: Vec<u8>) -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State {
                config,
                connected: true,
                ..State::default()
            }),
            wake: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Looks.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something on the processor's side.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        // Full only when billions were not taken: the thread is awake then.
        let _ = self.wake.write(1);
    }

    pub(super) fn want(&self, wanted: Option<Setup>) {
        self.change(|state| {
            state.wanted = wanted.map(Arc::new);
            state.asked += 1;
            state.calls.clear();
        });
    }

    pub(super) fn write_config(&self, offset: usize, data: &[u8]) {
        self.change(|state| {
            if state.config_writes.len() < MOST_WRITES {
                state.config_writes.push_back((offset, data.to_vec()));
            }
        });
    }

    pub(super) fn is_reset(&self) -> bool {
        let state = self.state();
        state.wanted.is_none() && state.done == state.asked
    }

    pub(super) fn pause(&self, paused: bool) {
        self.change(|state| {
            state.paused = paused;
            state.asked += 1;
        });
    }

    pub(super) fn is_paused(&self) -> bool {
        let state = self.state();
        state.paused && state.done == state.asked
    }

    pub(super) fn condition(&self) -> Condition {
        let state = self.state();
        Condition {
            connected: state.connected,
            started: state.wanted.is_some(),
            losses: state.losses,
        }
    }
}
