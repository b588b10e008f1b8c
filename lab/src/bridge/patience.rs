//! How long a lane looks before it sleeps.

use std::time::{Duration, Instant};

/// Adapts: waits that turn out short are looked for, long ones are slept through. A wake-up costs
/// tens of microseconds where a processor has to be started for it.
#[derive(Debug)]
pub(super) struct Patience {
    window: Duration,
    idle_since: Option<Instant>,
}

impl Patience {
    const MAX: Duration = Duration::from_micros(50);
    const FIRST: Duration = Duration::from_micros(5);

    pub(super) fn new() -> Self {
        Self {
            window: Duration::ZERO,
            idle_since: None,
        }
    }

    /// Something came.
    pub(super) fn work(&mut self) {
        let Some(since) = self.idle_since.take() else {
            return;
        };
        let waited = since.elapsed();
        if waited > Self::MAX {
            self.window /= 2;
        } else if waited > self.window {
            self.window = (self.window * 2).clamp(Self::FIRST, Self::MAX);
        }
    }

    /// Nothing came; whether to look again at once.
    pub(super) fn looks_on(&mut self) -> bool {
        let since = self.idle_since.get_or_insert_with(Instant::now);
        since.elapsed() < self.window
    }
}
