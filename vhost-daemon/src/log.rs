//! Logs: one line per event on standard error.

use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::MakeWriterExt;

/// Starts logging to standard error. `level` is a `tracing` filter: `info`, `debug`,
/// `vhost_daemon=trace,info`.
///
/// # Errors
/// When the filter cannot be understood.
pub fn start(level: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
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

/// Lets through a few log lines per window of time: for lines that a guest can cause.
#[derive(Debug, Default)]
pub struct Limiter {
    window_start: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

impl Limiter {
    const LINES: u32 = 5;
    const WINDOW: Duration = Duration::from_secs(10);

    /// `Some(lines suppressed before this one)` if a line may be written now.
    pub fn permit(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self
            .window_start
            .is_none_or(|start| now.duration_since(start) >= Self::WINDOW)
        {
            self.window_start = Some(now);
            self.passed = 0;
        }
        if self.passed < Self::LINES {
            self.passed += 1;
            return Some(std::mem::take(&mut self.suppressed));
        }
        self.suppressed += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_a_few_lines() {
        let mut limiter = Limiter::default();
        let passed = (0..1000).filter(|_| limiter.permit().is_some()).count();
        assert_eq!(passed, Limiter::LINES as usize);
        limiter.window_start = Instant::now().checked_sub(Limiter::WINDOW);
        assert_eq!(limiter.permit(), Some(1000 - u64::from(Limiter::LINES)));
    }
}
