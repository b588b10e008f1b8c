//! The report as text.

use std::fmt::Write;

use super::Role;
use super::guest;
use super::results::{Comparison, Outcome, Report, Row, Summary};
use crate::report::{Table, counted_by, one_line};
use crate::scenario::verdict;
use crate::statistics::Spread;

const COLUMNS: [&str; 12] = [
    "contestant",
    "packets/s",
    "min..max",
    "Gbit/s",
    "p50 us",
    "p99 us",
    "CPU us/packet",
    "calls/packet",
    "switches/packet",
    "others %",
    "ours / it: rate (min..max)",
    "CPU",
];

/// Writes the report for people.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    header(&mut text, report);
    let mut rows = report.rows.as_slice();
    while let Some(first) = rows.first() {
        let same = |row: &&Row| row.target == first.target && row.workload == first.workload;
        let (group, rest) = rows.split_at(rows.iter().take_while(same).count());
        let _ = writeln!(text, "\n{}/{}", first.target, first.name);
        let _ = write!(text, "{}", group_table(group));
        rows = rest;
    }
    guest::render(&mut text, &report.guests);
    verdict::render(&mut text, &report.verdicts);
    text
}

fn header(text: &mut String, report: &Report) {
    let settings = &report.settings;
    let _ = writeln!(text, "ringside-perf net\n{}", report.host.lines());
    let _ = writeln!(
        text,
        "medians of {} alternating rounds of {} s; system calls counted by {}",
        settings.rounds,
        settings.seconds,
        counted_by(settings.system_calls_by),
    );
    if let Some(percent) = settings.undisturbed {
        let _ = writeln!(
            text,
            "turns waited up to 10 s for a quiet host and were taken again, up to 5 times, while others used more than {percent} % of a core"
        );
    }
    if settings.keep_awake {
        let _ = writeln!(text, "processors were kept from halting");
    }
    if !report.complete {
        let _ = writeln!(text, "INTERRUPTED: workloads are missing");
    }
    for who in &report.contestants {
        let (target, name) = (who.target, &who.name);
        let _ = match &who.skipped {
            Some(reason) => writeln!(text, "{target}: {name} skipped: {}", one_line(reason)),
            None => writeln!(
                text,
                "{target}: {name}: {} [{}]",
                who.version.as_deref().unwrap_or(""),
                who.command
            ),
        };
    }
}

fn group_table(group: &[Row]) -> Table {
    let mut table = Table::new(1, &COLUMNS);
    for row in group {
        table.row(cells(group, row));
    }
    table
}

fn cells(group: &[Row], row: &Row) -> Vec<String> {
    let mut cells = vec![row.contestant.clone()];
    match &row.outcome {
        Outcome::Measured { summary, .. } => {
            cells.extend(figures(summary));
            let calls = row.outcome.system_calls();
            cells.insert(7, calls.map_or("-".to_owned(), |it| format!("{it:.3}")));
            let ours = group.iter().find(|it| it.role == Role::Ours);
            let ours = ours.and_then(|ours| {
                let against = |it: &&Comparison| it.with == row.contestant;
                ours.against.iter().find(against)
            });
            let told = |spread: &Spread| {
                let Spread {
                    median, min, max, ..
                } = spread;
                format!("{median:.2} ({min:.2}..{max:.2})")
            };
            cells.push(ours.map_or_else(String::new, |it| told(&it.rate)));
            let cpu = ours.and_then(|it| it.cpu);
            cells.push(cpu.map_or_else(String::new, |it| format!("{:.2}", it.median)));
        }
        // A short row: the remark runs on over the columns of figures.
        Outcome::Failed { reason } => cells.push(format!("FAILED: {}", one_line(reason))),
        Outcome::Skipped { .. } => cells.push("skipped: see above".to_owned()),
    }
    cells
}

fn figures(summary: &Summary) -> [String; 8] {
    let Spread { min, max, .. } = summary.rate;
    let latency =
        |spread: Option<Spread>| spread.map_or("-".to_owned(), |it| format!("{:.1}", it.median));
    [
        format!("{:.0}", summary.rate.median),
        format!("{:.0}k..{:.0}k", min / 1e3, max / 1e3),
        format!("{:.2}", summary.gbit_per_s.median),
        latency(summary.p50_us),
        latency(summary.p99_us),
        format!("{:.2}", summary.cpu_us.median),
        format!("{:.3}", summary.switches.median),
        format!("{:.0}", summary.others_percent.median),
    ]
}
