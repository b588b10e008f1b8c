//! Progress while it works, and the table at the end.

use std::fmt::Arguments;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What was done, what it showed, how long it took.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    part: &'static str,
    step: &'static str,
    shown: String,
    took: Duration,
}

impl Table {
    /// Does one step, telling before and after.
    pub(crate) fn step<T>(
        &mut self,
        part: &'static str,
        step: &'static str,
        work: impl FnOnce() -> Result<(T, String)>,
    ) -> Result<T> {
        say(format_args!("[{part}] {step} ... "));
        let start = Instant::now();
        let (value, shown) = work().with_context(|| format!("step \"{step}\" of {part}"))?;
        let took = start.elapsed();
        say(format_args!("{shown} ({:.1} s)\n", took.as_secs_f64()));
        self.rows.push(Row {
            part,
            step,
            shown,
            took,
        });
        Ok(value)
    }

    pub(crate) fn print(&self) {
        say(format_args!(
            "\n{:<10} {:<24} {:>8}  shown\n",
            "part", "step", "seconds"
        ));
        for Row {
            part,
            step,
            shown,
            took,
        } in &self.rows
        {
            let seconds = took.as_secs_f64();
            say(format_args!(
                "{part:<10} {step:<24} {seconds:>8.1}  {shown}\n"
            ));
        }
    }
}

/// Shows `text` at once. Progress is nice to have; a closed pipe is no reason to fail.
pub(crate) fn say(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_fmt(text).and_then(|()| out.flush());
}
