//! Progress while it works, and the table at the end.

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
        print!("[{part}] {step} ... ");
        // Progress is nice to have; a closed pipe is no reason to fail.
        let _ = std::io::stdout().flush();
        let start = Instant::now();
        let (value, shown) = work().with_context(|| format!("step \"{step}\" of {part}"))?;
        let took = start.elapsed();
        println!("{shown} ({:.1} s)", took.as_secs_f64());
        self.rows.push(Row {
            part,
            step,
            shown,
            took,
        });
        Ok(value)
    }

    pub(crate) fn print(&self) {
        println!("\n{:<10} {:<24} {:>8}  shown", "part", "step", "seconds");
        for Row {
            part,
            step,
            shown,
            took,
        } in &self.rows
        {
            println!("{part:<10} {step:<24} {:>8.1}  {shown}", took.as_secs_f64());
        }
    }
}
