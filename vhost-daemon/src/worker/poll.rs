//! How long to look at the ring before going to sleep.

use std::str::FromStr;
use std::time::Duration;

/// When a queue's thread polls instead of sleeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollPolicy {
    /// Polls as long as polling pays: the window grows while work arrives soon after the thread
    /// went idle, and shrinks to nothing while it does not. Idle costs no CPU.
    Auto,
    /// Always polls this long before sleeping; zero never polls.
    Fixed(Duration),
}

/// The `--poll-us` value is neither `auto` nor a number of microseconds.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is neither 'auto' nor a number of microseconds up to 1000000")]
pub struct NotAPollPolicy(String);

impl FromStr for PollPolicy {
    type Err = NotAPollPolicy;

    fn from_str(text: &str) -> Result<Self, NotAPollPolicy> {
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
}

impl PollWindow {
    /// A wait longer than this is not worth polling for: it is about what it costs to sleep and to be
    /// woken, on both sides, where a halted CPU has to be started (in a virtual machine: 25 to 90 µs,
    /// `ringside-perf blk --only d1`).
    const MAX: Duration = Duration::from_micros(64);
    const FIRST: Duration = Duration::from_micros(8);

    pub(super) fn new(policy: PollPolicy) -> Self {
        let window = match policy {
            PollPolicy::Auto => Duration::ZERO,
            PollPolicy::Fixed(window) => window,
        };
        Self { policy, window }
    }

    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// Learns that work came `idle` after the thread had run out of it.
    pub(super) fn work_came_after(&mut self, idle: Duration) {
        if self.policy != PollPolicy::Auto {
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
    fn the_option_takes_auto_and_microseconds() {
        assert_eq!("auto".parse::<PollPolicy>().unwrap(), PollPolicy::Auto);
        let fixed = PollPolicy::Fixed(Duration::from_micros(20));
        assert_eq!("20".parse::<PollPolicy>().unwrap(), fixed);
        assert!("-1".parse::<PollPolicy>().is_err());
        assert!("forever".parse::<PollPolicy>().is_err());
    }
}
