//! Counters and histograms, shown as Prometheus text.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Span;
use tracing::span::Entered;

use crate::log::Limiter;

mod histogram;
mod registry;
mod server;
pub use histogram::Histogram;
pub use registry::Registry;
pub use server::{MetricsServer, MetricsSocket};

/// A number that only one thread changes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. A plain load and store: the counter has one writer.
    pub fn add(&self, count: u64) {
        self.0
            .store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What every queue of every device counts. One thread writes: the queue's.
#[derive(Debug, Default)]
pub struct QueueMetrics {
    /// Requests put into the used ring.
    pub requests: Counter,
    /// Bytes read by the guest (from disk, file or network into guest memory).
    pub bytes_in: Counter,
    /// Bytes written by the guest.
    pub bytes_out: Counter,
    /// Requests answered with an error, or dropped.
    pub errors: Counter,
    /// Chains and rings that broke the rules of virtio.
    pub guest_faults: Counter,
    /// Interrupts sent to the guest.
    pub interrupts: Counter,
    /// Times the queue's thread slept and woke.
    pub wakeups: Counter,
    /// Requests popped and not completed, at the last turn of the worker's loop.
    pub in_flight: Counter,
    /// Time from the available ring to the used ring.
    pub latency: Histogram,
    /// For log lines that this queue's guest can cause, over all connections.
    pub limiter: Limiter,
    /// For those that say why the queue does not run: no flood of the others keeps them back.
    pub stop_limiter: Limiter,
}

/// A further series of one device, beyond those of [`QueueMetrics`].
struct Series {
    name: &'static str,
    help: &'static str,
    labels: String,
    counter: Arc<Counter>,
}

/// All metrics of one device. Counters outlive connections.
#[derive(Default)]
pub struct Metrics {
    /// What tells this device from others of the daemon, in Prometheus' form (`disk="a"`), or nothing.
    device: String,
    span: Option<Span>,
    queues: Mutex<Vec<(String, Arc<QueueMetrics>)>>,
    series: Mutex<Vec<Series>>,
}

impl Metrics {
    /// The metrics of one device among others of a daemon, whose series all carry the label
    /// `label="value"`.
    pub fn of_device(label: &str, value: &str) -> Self {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        Self {
            span: Some(tracing::error_span!("device", name = value)),
            device: format!("{label}=\"{value}\""),
            ..Self::default()
        }
    }

    /// The log lines written while the guard lives tell which device they are about, if the daemon
    /// has several.
    pub fn name_log_lines(&self) -> Option<Entered<'_>> {
        self.span.as_ref().map(Span::enter)
    }

    /// The metrics of the queue named `queue`, made at the first call.
    pub fn queue(&self, queue: &str) -> Arc<QueueMetrics> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, metrics)) = queues.iter().find(|(name, _)| name == queue) {
            return metrics.clone();
        }
        let metrics = Arc::new(QueueMetrics::default());
        queues.push((queue.to_owned(), metrics.clone()));
        metrics
    }

    /// A further number `name`, summed over all of its series whose labels contain `label`.
    pub fn total(&self, name: &str, label: &str) -> u64 {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let series = series.iter().filter(|series| series.name == name);
        let series = series.filter(|series| series.labels.contains(label));
        series.map(|series| series.counter.get()).sum()
    }

    /// A number of the queues, summed over all of them.
    pub fn sum(&self, read: fn(&QueueMetrics) -> u64) -> u64 {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.iter().map(|(_, metrics)| read(metrics)).sum()
    }

    /// A counter of the device's own: `name` without the prefix `ringside_`, with `labels` in
    /// Prometheus' form (`op="read"`).
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &str) -> Arc<Counter> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = series.iter().find(|s| s.name == name && s.labels == labels) {
            return known.counter.clone();
        }
        let counter = Arc::new(Counter::default());
        series.push(Series {
            name,
            help,
            labels: labels.to_owned(),
            counter: counter.clone(),
        });
        counter
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_queue_shows_its_counts_and_latencies() {
        let metrics = Arc::new(Metrics::default());
        let queue = metrics.queue("0");
        queue.requests.add(3);
        queue.latency.record(Duration::from_micros(3), 1);
        queue.latency.record(Duration::from_secs(100), 1);
        let text = Registry::of(&metrics).render();
        assert!(
            text.contains("ringside_requests_total{queue=\"0\"} 3\n"),
            "{text}"
        );
        assert!(text.contains("ringside_request_seconds_bucket{queue=\"0\",le=\"0.000002\"} 0\n"));
        assert!(text.contains("ringside_request_seconds_bucket{queue=\"0\",le=\"0.000004\"} 1\n"));
        assert!(text.contains("ringside_request_seconds_bucket{queue=\"0\",le=\"+Inf\"} 2\n"));
    }

    #[test]
    fn the_same_name_gives_the_same_counter() {
        let metrics = Arc::new(Metrics::default());
        metrics
            .counter("ops_total", "Operations", "op=\"read\"")
            .add(1);
        metrics
            .counter("ops_total", "Operations", "op=\"read\"")
            .add(1);
        assert!(
            Registry::of(&metrics)
                .render()
                .contains("ringside_ops_total{op=\"read\"} 2\n")
        );
    }
}
