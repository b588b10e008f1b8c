//! What nodes by name share: names do not change while they are walked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::warm::Warm;

/// What nodes by name share.
#[derive(Debug)]
pub(super) struct Names {
    /// There may be such nodes.
    used: AtomicBool,
    /// Held for reading while names are walked, for writing while one changes.
    moves: RwLock<()>,
    /// One directory at a time gets another parent: so none becomes its own ancestor.
    reparenting: Mutex<()>,
    pub(super) warm: Warm,
    next: AtomicU64,
}

impl Names {
    /// With up to `warm` descriptors of directories.
    pub(super) fn new(warm: usize) -> Self {
        Self {
            used: AtomicBool::new(false),
            moves: RwLock::default(),
            reparenting: Mutex::default(),
            warm: Warm::new(warm),
            next: AtomicU64::new(0),
        }
    }

    /// From now on there may be nodes by name.
    pub(super) fn use_them(&self) {
        if !self.are_used() {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn are_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// No name changes through us while this is held; nothing to hold where there are no nodes by name.
    /// A change that was under way when the first one came may be missed: the guest's kernel then
    /// hears `ESTALE` and looks it up again.
    pub(super) fn still(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.are_used()
            .then(|| self.moves.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nobody walks names while this is held. No node's descriptor must be asked for meanwhile.
    pub(super) fn moving(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        self.are_used()
            .then(|| self.moves.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Held by whoever gives a directory another parent.
    pub(super) fn reparenting(&self) -> MutexGuard<'_, ()> {
        self.reparenting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no node by name has had.
    pub(super) fn next_key(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}
