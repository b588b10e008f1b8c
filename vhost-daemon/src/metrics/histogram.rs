//! Latencies in buckets.

use std::fmt::Write as _;
use std::time::Duration;

use super::Counter;

/// Latencies in power-of-two buckets from 1 µs to about 8.4 s.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one holds what is longer than all bounds.
    buckets: [Counter; Histogram::BUCKETS + 1],
    nanoseconds: Counter,
}

impl Histogram {
    const BUCKETS: usize = 24;

    /// Counts a latency, `count` times.
    pub fn record(&self, latency: Duration, count: u64) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let microseconds = nanoseconds.div_ceil(1000);
        // Bucket n holds latencies up to 2^n µs.
        let bucket = microseconds.max(1).next_power_of_two().trailing_zeros() as usize;
        self.buckets[bucket.min(Self::BUCKETS)].add(count);
        self.nanoseconds.add(nanoseconds.saturating_mul(count));
    }

    pub(super) fn render(&self, name: &str, labels: &str, out: &mut String) {
        let mut below = 0;
        for (power, bucket) in self.buckets.iter().enumerate() {
            below += bucket.get();
            let bound = if power < Self::BUCKETS {
                ((1_u64 << power) as f64 / 1e6).to_string()
            } else {
                "+Inf".to_owned()
            };
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(
            out,
            "{name}_sum{{{labels}}} {}",
            self.nanoseconds.get() as f64 / 1e9
        );
        let _ = writeln!(out, "{name}_count{{{labels}}} {}", below);
    }
}
