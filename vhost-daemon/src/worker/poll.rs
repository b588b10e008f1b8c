//! How long to look at the ring before going to sleep.

use std::str::FromStr;
use std::time::{Duration, Instant};

/// When a queue's thread polls instead of sleeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollPolicy {
    /// Polls as long as polling pays: the window grows while work arrives soon after the thread
    /// went idle, and shrinks to nothing while it does not. Idle costs no CPU.
    Auto,
    /// The same, but polls in vain no more than this many percent of the time.
    AutoWithin(u8),
    /// Always polls this long before sleeping; zero never polls.
    Fixed(Duration),
}

/// The `--poll-us` value is neither `auto` nor a number of microseconds.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is neither 'auto', 'auto:PERCENT' nor a number of microseconds up to 1000000")]
pub struct NotAPollPolicy(String);

impl FromStr for PollPolicy {
    type Err = NotAPollPolicy;

    fn from_str(text: &str) -> Result<Self, NotAPollPolicy> {
        if let Some(percent) = text.strip_prefix("auto:") {
            let percent = percent.parse().ok().filter(|it| (1..=100).contains(it));
            let refused = || NotAPollPolicy(text.to_owned());
            return percent.map(Self::AutoWithin).ok_or_else(refused);
        }
        match text.parse::<u32>() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(us) if us <= 1_000_000 => Ok(Self::Fixed(Duration::from_micros(us.into()))),
            _ => Err(NotAPollPolicy(text.to_owned())),
        }
    }
}

/// The window of one queue's thread, adapted after each sleep.
#[derive(Debug)]
pub(super) struct PollWindow {
    policy: PollPolicy,
    window: Duration,
    /// How long it may still poll in vain, in nanoseconds; below zero after a long wait.
    credit: f64,
    credited: Instant,
}

impl PollWindow {
    /// A wait longer than this is not worth polling for: it is about what it costs to sleep and to be
    /// woken, on both sides, where a halted CPU has to be started (in a virtual machine: 25 to 90 µs,
    /// `ringside-perf blk --only d1`).
    const MAX: Duration = Duration::from_micros(64);
    const FIRST: Duration = Duration::from_micros(8);
    /// What a quiet time can earn at most.
    const MOST_CREDIT: Duration = Duration::from_millis(1);

    pub(super) fn new(policy: PollPolicy) -> Self {
        let window = match policy {
            PollPolicy::Auto | PollPolicy::AutoWithin(_) => Duration::ZERO,
            PollPolicy::Fixed(window) => window,
        };
        Self {
            policy,
            window,
            credit: 0.0,
            credited: Instant::now(),
        }
    }

    /// How long to poll now.
    pub(super) fn window(&self) -> Duration {
        if matches!(self.policy, PollPolicy::AutoWithin(_)) && self.credit < 0.0 {
            return Duration::ZERO;
        }
        self.window
    }

    /// Polled for `time` before work came, or before going to sleep.
    pub(super) fn polled(&mut self, time: Duration, now: Instant) {
        let PollPolicy::AutoWithin(percent) = self.policy else {
            return;
        };
        let earned = now.saturating_duration_since(self.credited).as_nanos() as f64;
        let earned = earned * f64::from(percent) / 100.0;
        let most = Self::MOST_CREDIT.as_nanos() as f64;
        let spent = time.min(self.window).as_nanos() as f64;
        self.credit = (self.credit + earned).min(most) - spent;
        self.credited = now;
    }

    /// Learns that work came `idle` after the thread had run out of it.
    pub(super) fn work_came_after(&mut self, idle: Duration) {
        if matches!(self.policy, PollPolicy::Fixed(_)) {
            return;
        }
        self.window = if idle > Self::MAX {
            Duration::ZERO
        } else if idle > self.window {
            (self.window * 2).clamp(Self::FIRST, Self::MAX)
        } else {
            self.window
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_grows_on_quick_work_and_stops_on_slow_work() {
        let mut window = PollWindow::new(PollPolicy::Auto);
        assert_eq!(window.window(), Duration::ZERO);
        for _ in 0..8 {
            window.work_came_after(Duration::from_micros(60));
        }
        assert_eq!(window.window(), PollWindow::MAX);
        window.work_came_after(Duration::from_millis(1));
        assert_eq!(window.window(), Duration::ZERO);
    }

    #[test]
    fn a_budget_ends_polling_until_it_is_earned_again() {
        let mut window = PollWindow::new(PollPolicy::AutoWithin(10));
        for _ in 0..8 {
            window.work_came_after(Duration::from_micros(60));
        }
        let mut now = Instant::now();
        window.polled(Duration::ZERO, now);
        assert_eq!(window.window(), PollWindow::MAX);
        // All the time is spent on it: ten times what it may be.
        let mut polls = 0;
        while !window.window().is_zero() {
            now += PollWindow::MAX;
            window.polled(PollWindow::MAX, now);
            polls += 1;
            assert!(polls < 100, "no end");
        }
        now += Duration::from_millis(20);
        window.polled(Duration::ZERO, now);
        assert_eq!(window.window(), PollWindow::MAX);
    }

    #[test]
    fn the_option_takes_auto_and_microseconds() {
        assert_eq!("auto".parse::<PollPolicy>().unwrap(), PollPolicy::Auto);
        let within = PollPolicy::AutoWithin(25);
        assert_eq!("auto:25".parse::<PollPolicy>().unwrap(), within);
        assert!("auto:0".parse::<PollPolicy>().is_err());
        assert!("auto:101".parse::<PollPolicy>().is_err());
        let fixed = PollPolicy::Fixed(Duration::from_micros(20));
        assert_eq!("20".parse::<PollPolicy>().unwrap(), fixed);
        assert!("-1".parse::<PollPolicy>().is_err());
        assert!("forever".parse::<PollPolicy>().is_err());
    }
}
