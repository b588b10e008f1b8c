//! How many nodes a guest may make the daemon remember.
//!
//! A node without a descriptor costs no open file, only memory, and how long it lives is up to the guest's
//! kernel: one that looks up, or makes and removes, without ever forgetting would take all there is.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vhost_daemon::log::Limiter;

use super::errno;

/// Counts nodes in memory: those that the guest knows, and directories that it has forgotten and by
/// which others are found.
#[derive(Debug)]
pub(super) struct NodeLimit {
    count: Arc<AtomicUsize>,
    max: usize,
    limiter: Limiter,
}

/// One node; dropping it makes room for another.
pub(super) struct CountedNode(Arc<AtomicUsize>);

impl NodeLimit {
    /// At most `max` nodes, or any number.
    pub(super) fn new(max: Option<usize>) -> Self {
        Self {
            count: Arc::default(),
            max: max.unwrap_or(usize::MAX),
            limiter: Limiter::default(),
        }
    }

    /// Counts a new node.
    ///
    /// # Errors
    /// `ENFILE`: there are too many.
    pub(super) fn count(&self) -> io::Result<CountedNode> {
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        let counted = CountedNode(self.count.clone());
        if before >= self.max {
            return Err(self.refuse());
        }
        Ok(counted)
    }

    /// Counts a node that the guest knows already, from an earlier process or another daemon.
    pub(super) fn count_always(&self) -> CountedNode {
        self.count.fetch_add(1, Ordering::Relaxed);
        CountedNode(self.count.clone())
    }

    /// For what should not be done and then have no node, as far as that is known before: another queue may take the
    /// last place meanwhile.
    ///
    /// # Errors
    /// `ENFILE`: there is no room for another node.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.count.load(Ordering::Relaxed) >= self.max {
            return Err(self.refuse());
        }
        Ok(())
    }

    fn refuse(&self) -> io::Error {
        if let Some(suppressed) = self.limiter.permit() {
            tracing::warn!(
                nodes = self.max,
                suppressed,
                "the guest knows as many files as --max-nodes allows: it gets ENFILE for further ones until it \
                 forgets some"
            );
        }
        errno(libc::ENFILE)
    }
}

impl Drop for CountedNode {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for CountedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountedNode")
    }
}
