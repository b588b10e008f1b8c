//! The report as text.

use std::fmt::Write;

use super::Role;
use super::results::{Comparison, Outcome, Report, Row, Summary};
use super::workload::Mode;
use crate::report::{Table, counted_by, one_line};
use crate::scenario::verdict;
use crate::statistics::Spread;

const COLUMNS: [&str; 13] = [
    "contestant",
    "mode",
    "IOPS",
    "min..max",
    "MB/s",
    "p50 us",
    "p99 us",
    "p99.9 us",
    "CPU us/IO",
    "calls/IO",
    "switches/IO",
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
        let same = |row: &&Row| row.target == first.target && row.workload == first.workload;
        let (group, rest) = rows.split_at(rows.iter().take_while(same).count());
        let _ = writeln!(text, "\n{}/{}", first.target, first.name);
        let _ = write!(text, "{}", group_table(group));
        rows = rest;
    }
    idle(&mut text, report);
    verdict::render(&mut text, &report.verdicts);
    text
}

fn header(text: &mut String, report: &Report) {
    let settings = &report.settings;
    let _ = writeln!(text, "ringside-perf blk\n{}", report.host.lines());
    let counted = counted_by(settings.system_calls_by);
    let _ = writeln!(
        text,
        "medians of {} alternating rounds of {} s after {} s of warm-up; disk of {} MiB; system calls counted by {counted}",
        settings.rounds,
        settings.seconds,
        settings.warm_up_seconds,
        settings.bytes >> 20,
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
    contestants(text, report);
}

fn contestants(text: &mut String, report: &Report) {
    for who in &report.contestants {
        let version = who.version.as_deref().unwrap_or("");
        let _ = match &who.skipped {
            Some(reason) => writeln!(
                text,
                "{}: {} skipped: {}",
                who.target,
                who.name,
                one_line(reason)
            ),
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
    let mut cells = vec![row.contestant.clone(), row.mode.to_string()];
    match &row.outcome {
        Outcome::Measured { summary, .. } => {
            cells.extend(figures(summary));
            let calls = row
                .outcome
                .system_calls()
                .map_or("-".to_owned(), |it| format!("{it:.3}"));
            cells.insert(9, calls);
            cells.push(ratio(group, row));
        }
        // A row of three cells: the remark runs on over the columns of figures.
        Outcome::Failed { reason } => cells.push(format!("FAILED: {}", one_line(reason))),
        Outcome::Skipped { .. } => cells.push("skipped: see above".to_owned()),
    }
    cells
}

fn figures(summary: &Summary) -> [String; 9] {
    let Spread { min, max, .. } = summary.iops;
    [
        format!("{:.0}", summary.iops.median),
        format!("{:.0}k..{:.0}k", min / 1e3, max / 1e3),
        format!("{:.0}", summary.mb_per_s.median),
        format!("{:.1}", summary.p50_us.median),
        format!("{:.1}", summary.p99_us.median),
        format!("{:.1}", summary.p999_us.median),
        format!("{:.2}", summary.cpu_us.median),
        format!("{:.3}", summary.switches.median),
        format!("{:.0}", summary.others_percent.median),
    ]
}

/// Our rate over this row's, by rounds: for a daemon in its mode, for fio in each mode.
fn ratio(group: &[Row], row: &Row) -> String {
    let ours = group
        .iter()
        .filter(|it| it.role == Role::Ours && (it.mode == row.mode || row.mode == Mode::Host));
    let told = ours
        .filter(|it| !std::ptr::eq(*it, row))
        .filter_map(|ours| {
            let Comparison { iops, .. } = Comparison::of(ours.outcome.samples(), row)?;
            let ratio = format!("{:.2} ({:.2}..{:.2})", iops.median, iops.min, iops.max);
            Some(match row.mode {
                Mode::Host => format!("{} {ratio}", ours.mode),
                _ => ratio,
            })
        });
    told.collect::<Vec<_>>().join(", ")
}

fn idle(text: &mut String, report: &Report) {
    if report.idle.is_empty() {
        return;
    }
    let mut table = Table::new(
        2,
        &["contestant", "target", "CPU % of one core", "watched s"],
    );
    for idle in &report.idle {
        table.row(vec![
            idle.contestant.clone(),
            idle.target.to_string(),
            format!("{:.3}", idle.cpu_percent),
            format!("{:.1}", idle.seconds),
        ]);
    }
    let _ = write!(text, "\nidle, with a front end connected\n{table}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::blk::fixture::row;

    #[test]
    fn a_failure_is_told_in_its_row() {
        let mut failed = row("qsd native", Role::Peer, Mode::Polling, 1.0, 1.0);
        failed.outcome = Outcome::Failed {
            reason: "no request\ncompleted".into(),
        };
        let text = group_table(&[failed]).to_string();
        assert!(text.ends_with("FAILED: no request completed\n"), "{text}");
    }

    #[test]
    fn a_group_shows_figures_and_ratios() {
        let group = [
            row("ringside", Role::Ours, Mode::Polling, 600_000.0, 1.5),
            row("qsd threads", Role::Peer, Mode::Polling, 300_000.0, 3.0),
            row("qsd threads", Role::Peer, Mode::Eventfd, 300_000.0, 3.0),
            row("fio io_uring", Role::Limit, Mode::Host, 800_000.0, 1.0),
        ];
        let text = group_table(&group).to_string();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|it| it.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1][..4],
            ["ringside", "polling", "600000", "600k..600k"]
        );
        assert!(
            text.lines().nth(2).unwrap().ends_with("2.00 (2.00..2.00)"),
            "{text}"
        );
        // We have no row with eventfds to set against it.
        assert!(text.lines().nth(3).unwrap().ends_with('0'), "{text}");
        assert!(
            text.lines()
                .nth(4)
                .unwrap()
                .ends_with("polling 0.75 (0.75..0.75)"),
            "{text}"
        );
    }
}
