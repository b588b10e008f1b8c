//! The guests' part of the report as text.

use std::fmt::Write;

use super::results::{GuestComparison, GuestOutcome, GuestRow, GuestSummary};
use crate::report::{Table, one_line};
use crate::scenario::net::Role;
use crate::statistics::Spread;

const COLUMNS: [&str; 12] = [
    "contestant",
    "Gbit/s",
    "min..max",
    "p50 us",
    "p99 us",
    "CPU s/GiB",
    "device's",
    "daemon's",
    "others %",
    "ours / it: rate or p50 (min..max)",
    "CPU",
    "device's",
];

/// Writes the guests' tables; of pings, processor time is for 1,000 of them.
pub(crate) fn render(text: &mut String, mut rows: &[GuestRow]) {
    while let Some(first) = rows.first() {
        let same = |row: &&GuestRow| row.target == first.target && row.load == first.load;
        let (group, rest) = rows.split_at(rows.iter().take_while(same).count());
        let mut table = Table::new(1, &COLUMNS);
        for row in group {
            table.row(cells(group, row));
        }
        let _ = write!(text, "\n{}/{}\n{table}", first.target, first.load.name());
        rows = rest;
    }
}

fn cells(group: &[GuestRow], row: &GuestRow) -> Vec<String> {
    let mut cells = vec![row.contestant.clone()];
    match &row.outcome {
        GuestOutcome::Measured { summary, .. } => {
            cells.extend(figures(summary));
            let ours = group.iter().find(|it| it.role == Role::Ours);
            let against = |it: &&GuestComparison| it.with == row.contestant;
            let against = ours.and_then(|ours| ours.against.iter().find(against));
            cells.extend(against.map_or_else(Default::default, ratios));
        }
        // A short row: the remark runs on over the columns of figures.
        GuestOutcome::Failed { reason } => cells.push(format!("FAILED: {}", one_line(reason))),
        GuestOutcome::Skipped { .. } => cells.push("skipped: see above".to_owned()),
    }
    cells
}

fn figures(summary: &GuestSummary) -> [String; 8] {
    let told = |spread: Option<Spread>, digits: usize| {
        spread.map_or("-".to_owned(), |it| format!("{:.digits$}", it.median))
    };
    let Spread { min, max, .. } = summary.gbit_per_s;
    let stream = summary.p50_us.is_none();
    let rate = Some(summary.gbit_per_s).filter(|_| stream);
    [
        told(rate, 3),
        rate.map_or("-".to_owned(), |_| format!("{min:.2}..{max:.2}")),
        told(summary.p50_us, 0),
        told(summary.p99_us, 0),
        told(Some(summary.cpu_s), 3),
        told(summary.device_cpu_s, 3),
        told(summary.daemon_cpu_s, 3),
        told(Some(summary.others_percent), 0),
    ]
}

fn ratios(against: &GuestComparison) -> [String; 3] {
    let told =
        |spread: Option<Spread>| spread.map_or("-".to_owned(), |it| format!("{:.2}", it.median));
    // A ping has no rate: there it is not finite.
    let first = against.p50.or(against.rate).map_or("-".to_owned(), |it| {
        format!("{:.2} ({:.2}..{:.2})", it.median, it.min, it.max)
    });
    [first, told(against.cpu), told(against.device_cpu)]
}
