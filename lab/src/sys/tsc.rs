//! How quick the processor's time stamp counter is.

use std::arch::x86_64::_rdtsc;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Between the two readings: what the clock may be wrong by at either is small beside it.
const APART: Duration = Duration::from_millis(100);
/// How often a reading is taken; the one that nothing came between counts.
const READINGS: u32 = 50;

/// Its rate in kHz, by the clock.
#[must_use]
pub(crate) fn khz() -> u64 {
    let (began, first) = reading();
    sleep(APART);
    let (ended, second) = reading();
    let microseconds = ended.duration_since(began).as_micros().max(1);
    let rate = u128::from(second.wrapping_sub(first)) * 1000 / microseconds;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// The clock and the counter at one time.
fn reading() -> (Instant, u64) {
    let readings = (0..READINGS).map(|_| {
        let before = Instant::now();
        // SAFETY: the instruction reads a register and has no other effect; Linux lets every program use it.
        let counter = unsafe { _rdtsc() };
        (before.elapsed(), before, counter)
    });
    let best = readings.min_by_key(|(took, ..)| *took);
    best.map_or_else(
        || (Instant::now(), 0),
        |(_, clock, counter)| (clock, counter),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (one, other) = (khz(), khz());
        assert!(one > 100_000, "{one} kHz");
        assert!(one.abs_diff(other) < one / 20, "{one} and {other} kHz");
    }
}
