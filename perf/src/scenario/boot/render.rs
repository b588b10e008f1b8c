//! The report as text.

use std::fmt::Write;

use super::results::{Outcome, Report, Row};
use crate::report::{Table, one_line};
use crate::scenario::verdict;
use crate::statistics::Spread;

/// Which figures are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Times.
    Times,
    /// Memory.
    Memory,
}

/// Writes the report for people.
#[must_use]
pub fn render(report: &Report, show: Show) -> String {
    let mut text = String::new();
    let settings = &report.settings;
    let _ = writeln!(text, "{}", report.host.lines());
    let _ = writeln!(
        text,
        "medians of {} alternating rounds; guest: 1 CPU, {} MiB, {}{}",
        settings.rounds,
        settings.memory_mib,
        settings.kernel,
        if settings.devices {
            ", with disk, network and file system"
        } else {
            ""
        }
    );
    if !report.complete {
        let _ = writeln!(text, "INTERRUPTED: rounds are missing");
    }
    let _ = write!(text, "\n{}", table(report, show));
    verdict::render(&mut text, &report.verdicts);
    text
}

fn table(report: &Report, show: Show) -> Table {
    let header: &[&str] = match show {
        Show::Times => &[
            "VMM",
            "first process ms",
            "min..max",
            "its CPU ms",
            "first instruction ms",
            "CPU ms",
            "ours / it",
        ],
        Show::Memory => &["VMM", "private KiB", "min..max"],
    };
    let mut table = Table::new(1, header);
    for row in &report.rows {
        table.row(cells(row, show));
    }
    table
}

fn cells(row: &Row, show: Show) -> Vec<String> {
    let mut cells = vec![row.contestant.clone()];
    let median = |spread: Spread| format!("{:.1}", spread.median);
    let range = |spread: Spread| format!("{:.0}..{:.0}", spread.min, spread.max);
    match &row.outcome {
        Outcome::Measured { summary: it, .. } if show == Show::Times => {
            let ratio = row.ours_by_it.map_or_else(String::new, |it| {
                format!("{:.2} ({:.2}..{:.2})", it.median, it.min, it.max)
            });
            cells.extend([
                median(it.boot_ms),
                range(it.boot_ms),
                median(it.boot_cpu_ms),
            ]);
            cells.extend([median(it.first_ms), median(it.first_cpu_ms), ratio]);
        }
        Outcome::Measured { summary: it, .. } => {
            cells.extend([
                format!("{:.0}", it.private_kib.median),
                range(it.private_kib),
            ]);
        }
        Outcome::Failed { reason } | Outcome::Skipped { reason } => {
            cells.push(format!("FAILED: {}", one_line(reason)));
        }
    }
    cells
}
