//! Words that all reports use.

use std::error::Error;

use crate::measure::Method;

/// A text without line breaks.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An error's message with its causes, for a cell of a report.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    text
}

/// What counted system calls.
#[must_use]
pub fn counted_by(method: Option<Method>) -> &'static str {
    match method {
        Some(Method::Perf) => "perf stat",
        Some(Method::Strace) => "strace -c (slows the daemon: counts are a lower bound)",
        None => "nothing (neither perf nor strace works here)",
    }
}
