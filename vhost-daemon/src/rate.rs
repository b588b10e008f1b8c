//! Rate limits of a device, shared by its queues and changed while they run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How much may pass; zero means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Units (requests, frames) a second.
    pub units: u64,
    /// Units that may come at once after a rest; a tenth of a second's worth if 0.
    pub units_burst: u64,
    /// Bytes a second.
    pub bytes: u64,
    /// Bytes that may come at once after a rest; a tenth of a second's worth if 0.
    pub bytes_burst: u64,
}

/// The limits of one device, or of one direction.
#[derive(Debug, Default)]
pub struct Limits {
    /// Whether there is any: without, nothing below is touched.
    limited: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rates: Rates,
    units: Bucket,
    bytes: Bucket,
}

/// A token bucket that may go into debt: a request larger than the burst passes, and what comes
/// next waits the longer.
#[derive(Debug, Default)]
struct Bucket {
    rate: f64,
    burst: f64,
    level: f64,
    updated: Option<Instant>,
}

impl Bucket {
    fn new(rate: u64, burst: u64) -> Self {
        let burst = if burst == 0 {
            (rate / 10).max(1)
        } else {
            burst
        };
        // Beyond 2^53 a second a rounded rate is no different.
        let (rate, burst) = (rate as f64, burst as f64);
        Self {
            rate,
            burst,
            level: burst,
            updated: None,
        }
    }

    fn is_limited(&self) -> bool {
        self.rate > 0.0
    }

    fn refill(&mut self, now: Instant) {
        let updated = self.updated.get_or_insert(now);
        let seconds = now.saturating_duration_since(*updated).as_secs_f64();
        // Another queue's thread may have looked at the clock later and come here before: no time counts twice.
        *updated = now.max(*updated);
        self.level = (self.level + seconds * self.rate).min(self.burst);
    }

    /// How long until something may pass.
    fn wait(&self) -> Duration {
        if !self.is_limited() || self.level > 0.0 {
            return Duration::ZERO;
        }
        // One token beyond the debt. A rate of one in an hour must not overflow the clock.
        Duration::from_secs_f64(((1.0 - self.level) / self.rate).min(3600.0))
    }
}

impl Limits {
    /// Sets new rates; they hold from the next unit on.
    pub fn set(&self, rates: Rates) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State {
            rates,
            units: Bucket::new(rates.units, rates.units_burst),
            bytes: Bucket::new(rates.bytes, rates.bytes_burst),
        };
        let limited = state.units.is_limited() || state.bytes.is_limited();
        self.limited.store(limited, Ordering::Release);
    }

    /// The rates as set.
    pub fn rates(&self) -> Rates {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .rates
    }

    /// Whether there is any limit.
    pub fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Acquire)
    }

    /// How long the next unit has to wait; `None` if it may pass now.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.units.refill(now);
        state.bytes.refill(now);
        let wait = state.units.wait().max(state.bytes.wait());
        (!wait.is_zero()).then_some(wait)
    }

    /// A request of `bytes` passed.
    pub fn take(&self, bytes: usize) {
        self.take_many(1, bytes);
    }

    /// So many units passed, of so many bytes together.
    pub fn take_many(&self, units: usize, bytes: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.units.level -= units as f64;
        state.bytes.level -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests of `bytes` that pass in `seconds`, asked for every millisecond as often as allowed.
    fn passed(limits: &Limits, bytes: usize, seconds: u64) -> u64 {
        let start = Instant::now();
        let mut count = 0;
        for millisecond in 0..seconds * 1000 {
            let now = start + Duration::from_millis(millisecond);
            while limits.wait(now).is_none() {
                limits.take(bytes);
                count += 1;
                assert!(count < 1_000_000, "no limit holds");
            }
        }
        count
    }

    #[test]
    fn rates_hold_over_time() {
        let limits = Limits::default();
        limits.set(Rates {
            units: 1000,
            ..Rates::default()
        });
        let count = passed(&limits, 4096, 10);
        assert!((10_000..=10_200).contains(&count), "{count}");
        limits.set(Rates {
            bytes: 1 << 20,
            ..Rates::default()
        });
        let count = passed(&limits, 4096, 10);
        assert!((2560..=2620).contains(&count), "{count}");
    }

    #[test]
    fn a_burst_passes_at_once_and_a_giant_is_paid_for() {
        let limits = Limits::default();
        limits.set(Rates {
            units: 10,
            units_burst: 50,
            ..Rates::default()
        });
        let now = Instant::now();
        let mut count = 0;
        while limits.wait(now).is_none() {
            limits.take(1);
            count += 1;
        }
        assert_eq!(count, 50);
        limits.set(Rates {
            bytes: 1000,
            bytes_burst: 100,
            ..Rates::default()
        });
        assert!(limits.wait(now).is_none());
        limits.take(10_000);
        let wait = limits.wait(now).unwrap();
        assert!((9.8..=10.0).contains(&wait.as_secs_f64()), "{wait:?}");
    }

    #[test]
    fn threads_whose_clock_readings_are_old_gain_nothing() {
        let limits = Limits::default();
        limits.set(Rates {
            units: 100,
            units_burst: 100,
            ..Rates::default()
        });
        let (start, mut count) = (Instant::now(), 0);
        for millisecond in 0..10_000 {
            for behind in [0, 40] {
                let now = start + Duration::from_millis(40 + millisecond - behind);
                while limits.wait(now).is_none() {
                    limits.take(1);
                    count += 1;
                }
            }
        }
        assert!((1000..=1110).contains(&count), "{count}");
    }

    #[test]
    fn no_limit_and_tiny_limits_are_no_trouble() {
        let limits = Limits::default();
        limits.set(Rates::default());
        assert!(!limits.is_limited() && limits.wait(Instant::now()).is_none());
        limits.set(Rates {
            units: 1,
            bytes: u64::MAX,
            ..Rates::default()
        });
        limits.take(usize::MAX);
        assert!(limits.wait(Instant::now()).unwrap() <= Duration::from_secs(3600));
    }
}
