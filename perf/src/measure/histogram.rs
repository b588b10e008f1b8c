//! A log-linear histogram: exact below 128, then 64 buckets for each power of two (1.6 %).

use serde::{Deserialize, Serialize};

/// log2 of the buckets in each power of two.
const PRECISION: u32 = 6;
const PER_OCTAVE: usize = 1 << PRECISION;
const BUCKETS: usize = (u64::BITS as usize - PRECISION as usize + 1) * PER_OCTAVE;

/// Counts of values by magnitude. Recording neither allocates nor divides.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

/// Latency percentiles in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the requests took no longer.
    pub p50_ns: f64,
    /// 9 of 10 took no longer; nothing in runs of before it was told.
    #[serde(default)]
    pub p90_ns: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99_ns: f64,
    /// 999 of 1000 took no longer.
    pub p999_ns: f64,
    /// 9999 of 10000 took no longer; nothing in runs of before it was told.
    #[serde(default)]
    pub p9999_ns: Option<f64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
        }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// Number of values.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value that `share` (0 to 1) of all values do not exceed, to the middle of its bucket;
    /// 0 without values.
    #[must_use]
    pub fn percentile(&self, share: f64) -> f64 {
        let wanted = share * self.total as f64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted {
                return middle(index);
            }
        }
        0.0
    }

    /// The percentiles that reports show.
    #[must_use]
    pub fn latency(&self) -> Latency {
        Latency {
            p50_ns: self.percentile(0.5),
            p90_ns: Some(self.percentile(0.9)),
            p99_ns: self.percentile(0.99),
            p999_ns: self.percentile(0.999),
            p9999_ns: Some(self.percentile(0.9999)),
        }
    }
}

fn bucket(value: u64) -> usize {
    let magnitude = u64::BITS - value.leading_zeros();
    let shift = magnitude.saturating_sub(PRECISION + 1);
    // Below 2 * PER_OCTAVE whatever the value, so that it fits any usize.
    let mantissa = usize::try_from(value >> shift).unwrap_or(usize::MAX);
    shift as usize * PER_OCTAVE + mantissa
}

fn middle(index: usize) -> f64 {
    let shift = (index / PER_OCTAVE).saturating_sub(1);
    let mantissa = (index - shift * PER_OCTAVE) as f64;
    let width = 2_f64.powf(shift as f64);
    mantissa * width + (width - 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_consecutive_and_in_range() {
        assert_eq!(
            (bucket(0), bucket(127), bucket(128), bucket(129)),
            (0, 127, 128, 128)
        );
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        let mut last = 0;
        for value in 0..1_000_000 {
            let index = bucket(value);
            assert!(index == last || index == last + 1, "value {value}");
            last = index;
        }
    }

    #[test]
    fn a_bucket_tells_its_values_to_one_percent() {
        for power in 0..60 {
            for value in [1 << power, (1 << power) + (1 << power) / 3] {
                let told = middle(bucket(value));
                let error = (told - value as f64).abs() / value as f64;
                assert!(error <= 0.008, "{value} told as {told}");
            }
        }
    }

    #[test]
    fn percentiles_of_a_ramp() {
        let mut histogram = Histogram::default();
        (1..=10_000).for_each(|value| histogram.record(value));
        let near = |share, wanted: f64| {
            let got = histogram.percentile(share);
            assert!((got / wanted - 1.0).abs() < 0.01, "{share}: {got}");
        };
        near(0.5, 5000.0);
        near(0.99, 9900.0);
        near(0.999, 9990.0);
        near(1.0, 10_000.0);
    }

    #[test]
    fn merged_counts_add_up() {
        let (mut left, mut right) = (Histogram::default(), Histogram::default());
        left.record(10);
        right.record(20);
        right.record(20);
        left.merge(&right);
        assert_eq!((left.total(), left.percentile(0.5)), (3, 20.0));
        assert_eq!(Histogram::default().percentile(0.5), 0.0);
    }
}
