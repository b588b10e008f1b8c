//! Logs: one line per event on standard error.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
/// A log filter that cannot be understood.
pub use tracing_subscriber::filter::ParseError as FilterError;
use tracing_subscriber::fmt::writer::MakeWriterExt;

/// Starts logging to standard error. `level` is a `tracing` filter: `info`, `debug`,
/// `vhost_daemon=trace,info`.
///
/// # Errors
/// When the filter cannot be understood.
pub fn start(level: &str) -> Result<(), FilterError> {
    let filter = EnvFilter::try_new(level)?;
    let writer = std::io::stderr.with_max_level(tracing::Level::TRACE);
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(ansi)
        .with_target(false)
        .try_init();
    Ok(())
}

/// Lets through a few log lines per window of time: for lines that a guest or a front end can
/// cause. Shared by whoever writes such lines about one thing.
#[derive(Debug, Default)]
pub struct Limiter(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    start: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

impl Limiter {
    const LINES: u32 = 5;
    const WINDOW: Duration = Duration::from_secs(10);

    /// `Some(lines suppressed before this one)` if a line may be written now.
    pub fn permit(&self) -> Option<u64> {
        self.permit_at(Instant::now())
    }

    fn permit_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window
            .start
            .is_none_or(|start| now.duration_since(start) >= Self::WINDOW)
        {
            window.start = Some(now);
            window.passed = 0;
        }
        if window.passed < Self::LINES {
            window.passed += 1;
            return Some(std::mem::take(&mut window.suppressed));
        }
        window.suppressed += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_a_few_lines() {
        let limiter = Limiter::default();
        let start = Instant::now();
        let passed = (0..1000)
            .filter(|_| limiter.permit_at(start).is_some())
            .count();
        assert_eq!(passed, Limiter::LINES as usize);
        let suppressed = 1000 - u64::from(Limiter::LINES);
        assert_eq!(limiter.permit_at(start + Limiter::WINDOW), Some(suppressed));
    }
}
