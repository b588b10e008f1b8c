//! Directories by name that were used lately stay open for a while.
//!
//! A program that walks a tree comes back to the same directory for each of its entries.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Descriptors by key, the oldest of which goes first.
#[derive(Debug)]
pub(super) struct Warm {
    room: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_key: HashMap<u64, Arc<OwnedFd>>,
    /// Keys as they came; some may have been forgotten since.
    order: VecDeque<u64>,
}

impl Warm {
    /// With room for so many.
    pub(super) fn new(room: usize) -> Self {
        Self {
            room,
            kept: Mutex::default(),
        }
    }

    pub(super) fn get(&self, key: u64) -> Option<Arc<OwnedFd>> {
        self.kept().by_key.get(&key).cloned()
    }

    pub(super) fn keep(&self, key: u64, fd: &Arc<OwnedFd>) {
        let mut gone = Vec::new();
        let mut kept = self.kept();
        // Another queue may have opened it at the same time.
        if self.room == 0 || kept.by_key.contains_key(&key) {
            return;
        }
        while kept.order.len() >= self.room
            && let Some(oldest) = kept.order.pop_front()
        {
            gone.push(kept.by_key.remove(&oldest));
        }
        kept.order.push_back(key);
        kept.by_key.insert(key, fd.clone());
        drop(kept);
        // They close after the lock.
        drop(gone);
    }

    pub(super) fn forget(&self, key: u64) {
        let gone = self.kept().by_key.remove(&key);
        drop(gone);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let fd = || Arc::new(OwnedFd::from(std::fs::File::open("/").unwrap()));
        let warm = Warm::new(3);
        for key in 0..5 {
            warm.keep(key, &fd());
        }
        let there = |warm: &Warm| (0..8).filter(|key| warm.get(*key).is_some()).collect();
        let kept: Vec<u64> = there(&warm);
        assert_eq!(kept, [2, 3, 4]);
        warm.forget(3);
        warm.keep(4, &fd());
        warm.keep(5, &fd());
        warm.keep(6, &fd());
        let kept: Vec<u64> = there(&warm);
        assert_eq!(kept, [4, 5, 6]);
        let none = Warm::new(0);
        none.keep(1, &fd());
        assert!(none.get(1).is_none());
    }
}
