//! How many nodes a guest may make the daemon remember.
//!
//! A node without a descriptor costs no open file, only memory, and how long it lives is up to the guest's
//! kernel: one that looks up, or makes and removes, without ever forgetting would take all there is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vhost_daemon::log::Limiter;

use super::budget::Counted;
use super::errno;

/// Counts nodes in memory: those that the guest knows, and directories that it has forgotten and by
/// which others are found.
#[derive(Debug)]
pub(super) struct NodeLimit {
    count: Arc<AtomicUsize>,
    max: usize,
    limiter: Limiter,
}

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
    pub(super) fn count(&self) -> io::Result<Counted> {
        let (counted, before) = Counted::one_more(&self.count);
        if before >= self.max {
            return Err(self.refuse());
        }
        Ok(counted)
    }

    /// Counts a node that the guest knows already, from an earlier process or another daemon.
    pub(super) fn count_always(&self) -> Counted {
        Counted::one_more(&self.count).0
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
