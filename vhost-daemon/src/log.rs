//! Logs: one line per event, on standard error or to syslog.

mod syslog;

use std::hash::{DefaultHasher, Hash, Hasher};
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

/// Starts logging to syslog as `program`; to standard error if nobody listens on /dev/log. The
/// connection is made now: it holds in a sandbox, and ends when syslog starts again.
///
/// # Errors
/// When the filter cannot be understood.
pub fn start_syslog(level: &str, program: &'static str) -> Result<(), FilterError> {
    let filter = EnvFilter::try_new(level)?;
    match syslog::Syslog::connect(program) {
        Ok(syslog) => {
            let _ = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(syslog)
                .with_ansi(false)
                .with_target(false)
                .with_level(false)
                .without_time()
                .try_init();
        }
        Err(error) => {
            start(level)?;
            tracing::warn!(%error, "no syslog on /dev/log; this log goes to standard error");
        }
    }
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
    /// What the last line was about.
    about: Option<u64>,
}

impl Limiter {
    const LINES: u32 = 5;
    const WINDOW: Duration = Duration::from_secs(10);

    /// `Some(lines suppressed before this one)` if a line may be written now.
    pub fn permit(&self) -> Option<u64> {
        self.permit_at(Instant::now(), None)
    }

    /// The same for a line that says the same whenever `about` is the same: within a window it is not
    /// written twice in a row.
    pub fn permit_about(&self, about: impl Hash) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        about.hash(&mut hasher);
        self.permit_at(Instant::now(), Some(hasher.finish()))
    }

    fn permit_at(&self, now: Instant, about: Option<u64>) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let expired = |start| now.duration_since(start) >= Self::WINDOW;
        if window.start.is_none_or(expired) {
            window.start = Some(now);
            window.passed = 0;
            window.about = None;
        }
        let is_new = about.is_none() || window.about != about;
        if is_new && window.passed < Self::LINES {
            window.passed += 1;
            window.about = about;
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
            .filter(|_| limiter.permit_at(start, None).is_some())
            .count();
        assert_eq!(passed, Limiter::LINES as usize);
        let suppressed = 1000 - u64::from(Limiter::LINES);
        assert_eq!(
            limiter.permit_at(start + Limiter::WINDOW, None),
            Some(suppressed)
        );
    }

    #[test]
    fn the_same_is_said_once_in_a_while() {
        let limiter = Limiter::default();
        let start = Instant::now();
        let permit = |about| limiter.permit_at(start, Some(about));
        let passed: Vec<bool> = [1, 1, 1, 2, 2, 1]
            .map(|about| permit(about).is_some())
            .into();
        assert_eq!(passed, [true, false, false, true, false, true]);
        assert_eq!(limiter.permit_at(start + Limiter::WINDOW, Some(1)), Some(0));
    }
}
