//! The report as text.

use std::fmt::Write;

use super::results::{Comparison, Outcome, Report, Row, Summary};
use super::workload::Cache;
use crate::report::{Table, counted_by, one_line};
use crate::scenario::verdict;
use crate::statistics::Spread;

const COLUMNS: [&str; 13] = [
    "contestant",
    "cache",
    "ops/s",
    "min..max",
    "MB/s",
    "p50 us",
    "p99 us",
    "CPU us/op",
    "calls/op",
    "switches/op",
    "bridge us/op",
    "others %",
    "ours / it: rate (min..max)",
];

/// Writes the report for people.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    header(&mut text, report);
    let mut rows = report.rows.as_slice();
    while let Some(first) = rows.first() {
        let same = |row: &&Row| row.target == first.target && row.load == first.load;
        let (group, rest) = rows.split_at(rows.iter().take_while(same).count());
        let _ = writeln!(text, "\n{}/{}", first.target, first.name);
        let _ = write!(text, "{}", group_table(group));
        rows = rest;
    }
    verdict::render(&mut text, &report.verdicts);
    text
}

fn header(text: &mut String, report: &Report) {
    let settings = &report.settings;
    let _ = writeln!(text, "ringside-perf fs\n{}", report.host.lines());
    let counted = counted_by(settings.system_calls_by);
    let _ = writeln!(
        text,
        "medians of {} alternating rounds, of {} s each with fio; {} MiB of data, {} small files; system calls counted by {counted}",
        settings.rounds,
        settings.seconds,
        settings.bytes >> 20,
        settings.files,
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
        let version = who.version.as_deref().unwrap_or("");
        let _ = match &who.skipped {
            Some(reason) => {
                let reason = one_line(reason);
                writeln!(text, "{}: {} skipped: {reason}", who.target, who.name)
            }
            None => writeln!(
                text,
                "{}: {}: {version} [{}]",
                who.target, who.name, who.command
            ),
        };
    }
}

fn group_table(group: &[Row]) -> Table {
    let mut table = Table::new(2, &COLUMNS);
    for row in group {
        table.row(cells(group, row));
    }
    table
}

fn cells(group: &[Row], row: &Row) -> Vec<String> {
    let mut cells = vec![row.contestant.clone(), row.cache.to_string()];
    match &row.outcome {
        Outcome::Measured { summary, .. } => {
            cells.extend(figures(summary, row.outcome.system_calls()));
            cells.push(ratio(group, row));
        }
        // A row of three cells: the remark runs on over the columns of figures.
        Outcome::Failed { reason } => cells.push(format!("FAILED: {}", one_line(reason))),
        Outcome::Skipped { .. } => cells.push("skipped: see above".to_owned()),
    }
    cells
}

fn figures(summary: &Summary, calls: Option<f64>) -> [String; 10] {
    let or_dash = |value: Option<f64>, decimals: usize| {
        value.map_or("-".to_owned(), |value| format!("{value:.decimals$}"))
    };
    let median = |spread: Option<Spread>, decimals| or_dash(spread.map(|it| it.median), decimals);
    let Spread { min, max, .. } = summary.rate;
    [
        format!("{:.0}", summary.rate.median),
        format!("{:.1}k..{:.1}k", min / 1e3, max / 1e3),
        median(summary.mb_per_s, 0),
        median(summary.p50_us, 1),
        median(summary.p99_us, 1),
        median(summary.cpu_us, 2),
        or_dash(calls, 2),
        median(summary.switches, 3),
        median(summary.bridge_us, 2),
        format!("{:.0}", summary.others_percent.median),
    ]
}

/// Our rate over this row's, by rounds: for a daemon with its cache, for the host with each.
fn ratio(group: &[Row], row: &Row) -> String {
    let ours = group
        .iter()
        .filter(|it| it.is_ours() && (it.cache == row.cache || row.cache == Cache::Host));
    let told = ours
        .filter(|it| !std::ptr::eq(*it, row))
        .filter_map(|ours| {
            let Comparison { rate, .. } = Comparison::of(ours.outcome.samples(), row)?;
            let ratio = format!("{:.2} ({:.2}..{:.2})", rate.median, rate.min, rate.max);
            Some(match row.cache {
                Cache::Host => format!("{} {ratio}", ours.cache),
                _ => ratio,
            })
        });
    told.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::fs::Role;
    use crate::scenario::fs::fixture::row;

    #[test]
    fn a_failure_is_told_in_its_row() {
        let mut failed = row("qemu virtiofsd", Role::Peer, Cache::Never, 1.0, 1.0);
        failed.outcome = Outcome::Failed {
            reason: "the daemon\nhas ended".into(),
        };
        let text = group_table(&[failed]).to_string();
        assert!(text.ends_with("FAILED: the daemon has ended\n"), "{text}");
    }

    #[test]
    fn a_group_shows_figures_and_ratios() {
        let group = [
            row("ringside", Role::Ours, Cache::Auto, 200_000.0, 1.5),
            row("rust virtiofsd", Role::Peer, Cache::Auto, 100_000.0, 3.0),
            row("bare host", Role::Limit, Cache::Host, 800_000.0, 0.0),
        ];
        let text = group_table(&group).to_string();
        let lines: Vec<&str> = text.lines().collect();
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(words[..4], ["ringside", "auto", "200000", "200.0k..200.0k"]);
        assert!(lines[2].ends_with("2.00 (2.00..2.00)"), "{text}");
        assert!(lines[3].ends_with("auto 0.25 (0.25..0.25)"), "{text}");
        // Without a daemon there is nothing to be charged.
        assert_eq!(
            lines[3].split_whitespace().filter(|it| *it == "-").count(),
            4
        );
    }
}
