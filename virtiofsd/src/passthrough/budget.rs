//! How many files a guest may make the daemon hold open.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};

use super::errno;

/// Kept back from the limit of open files: what a request opens for a moment, and the rings, sockets
/// and memory of a front end, which must find a place when it connects again after a hostile guest.
const RESERVE: usize = 1024;

/// More than this need not be open for a while: a tree is not that deep.
const MAX_WARM: usize = 256;

/// Shares out the limit of open files.
pub(super) struct Budget {
    nodes: Arc<AtomicUsize>,
    handles: Arc<AtomicUsize>,
    /// With more nodes than this the next ones do without a descriptor, if they can.
    max_nodes: usize,
    /// How many of those that do without may be open for a while.
    warm: usize,
    /// Nodes and handles together.
    max: usize,
}

/// One of what is counted, an open file or a node; dropping it makes room for another.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// One more; and how many there were before it.
    pub(super) fn one_more(count: &Arc<AtomicUsize>) -> (Self, usize) {
        let before = count.fetch_add(1, Ordering::Relaxed);
        (Self(count.clone()), before)
    }
}

impl Budget {
    /// By the process' limit of open files: half of it is for nodes, unless `max_nodes` says
    /// otherwise, and the rest, a reserve aside, for what guests have open.
    pub(super) fn within_limits(max_nodes: Option<usize>) -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::new(usize::try_from(limit).unwrap_or(usize::MAX), max_nodes)
    }

    fn new(limit: usize, max_nodes: Option<usize>) -> Self {
        let max_nodes = max_nodes.unwrap_or(limit / 2);
        let warm = (max_nodes / 4).min(MAX_WARM);
        Self {
            nodes: Arc::default(),
            handles: Arc::default(),
            max_nodes: max_nodes - warm,
            warm,
            max: limit - RESERVE.min(limit / 4),
        }
    }

    /// How many nodes that do without a descriptor may have one for a while.
    pub(super) fn max_warm(&self) -> usize {
        self.warm
    }

    /// Whether nodes should do without a descriptor.
    pub(super) fn is_crowded(&self) -> bool {
        self.nodes.load(Ordering::Relaxed) >= self.max_nodes || self.held() >= self.max
    }

    /// Counts the descriptor of a node.
    ///
    /// # Errors
    /// `EMFILE`: there are none left.
    pub(super) fn node(&self) -> io::Result<Counted> {
        self.count(&self.nodes)
    }

    /// Counts the descriptor of a node that has lost its name. There may be so many that as much again
    /// is left for what guests open.
    ///
    /// # Errors
    /// `EMFILE`: there are none left.
    pub(super) fn nameless(&self) -> io::Result<Counted> {
        let counted = self.node()?;
        if self.nodes.load(Ordering::Relaxed) > usize::midpoint(self.max_nodes, self.max) {
            return Err(errno(libc::EMFILE));
        }
        Ok(counted)
    }

    /// Counts the descriptor of an open file.
    ///
    /// # Errors
    /// `EMFILE`: there are none left.
    pub(super) fn handle(&self) -> io::Result<Counted> {
        self.count(&self.handles)
    }

    fn count(&self, kind: &Arc<AtomicUsize>) -> io::Result<Counted> {
        let (counted, _) = Counted::one_more(kind);
        if self.held() > self.max {
            return Err(errno(libc::EMFILE));
        }
        Ok(counted)
    }

    fn held(&self) -> usize {
        self.nodes.load(Ordering::Relaxed) + self.handles.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_without_a_name_leave_room_for_handles() {
        // 75 nodes stay open, 25 for a while; 300 in all.
        let budget = Budget::new(400, Some(100));
        let kept: Vec<_> = (0..400).map_while(|_| budget.nameless().ok()).collect();
        assert_eq!(kept.len(), (75 + 300) / 2);
        let handles: Vec<_> = (0..400).map_while(|_| budget.handle().ok()).collect();
        assert_eq!(handles.len(), 300 - kept.len());
    }

    #[test]
    fn nodes_and_handles_leave_the_reserve_alone() {
        let budget = Budget::new(400, None);
        let mut nodes: Vec<_> = (0..200 - budget.max_warm())
            .map(|_| budget.node().unwrap())
            .collect();
        assert!(budget.is_crowded());
        assert_eq!(budget.max_warm(), 50);
        let handles: Vec<_> = (0..150).map(|_| budget.handle().unwrap()).collect();
        for refused in [budget.handle(), budget.node()] {
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EMFILE));
        }
        nodes.pop();
        assert!(!budget.is_crowded());
        let _last = budget.handle().unwrap();
        assert!(budget.is_crowded(), "handles crowd nodes out, too");
        assert!(budget.handle().is_err());
        drop(handles);
        assert!(budget.handle().is_ok());
    }
}
