//! Requests by kind.

use std::sync::Arc;

use vhost_daemon::metrics::{Counter, Metrics};

/// Requests of one queue by kind, shown as `ringside_block_operations_total`.
#[derive(Clone, Debug)]
pub struct OperationCounts {
    pub(crate) read: Arc<Counter>,
    pub(crate) write: Arc<Counter>,
    pub(crate) flush: Arc<Counter>,
    pub(crate) discard: Arc<Counter>,
    pub(crate) write_zeroes: Arc<Counter>,
}

impl OperationCounts {
    /// The counters of queue `queue`.
    pub fn register(metrics: &Metrics, queue: usize) -> Self {
        let counter = |kind: &str| {
            let labels = format!("queue=\"{queue}\",op=\"{kind}\"");
            metrics.counter("block_operations_total", "Block operations begun", &labels)
        };
        Self {
            read: counter("read"),
            write: counter("write"),
            flush: counter("flush"),
            discard: counter("discard"),
            write_zeroes: counter("write_zeroes"),
        }
    }
}
