//! Disks.

use super::curve::{Curve, Scaled, scaling};
use super::{Better, Findings, Finds, Group, Seat, Teller, groups, method, skipped};
use crate::scenario::blk::{Mode, Report, Row, Sample, Summary, Workload};

const FIGURES: [Teller<'static, Sample>; 4] = [
    Teller {
        what: "requests",
        unit: "1/s",
        better: Better::Higher,
        of: &|it| Some(it.iops),
    },
    Teller {
        what: "processor time for a request",
        unit: "us",
        better: Better::Lower,
        of: &|it| Some(it.cpu_us),
    },
    Teller {
        what: "latency, median",
        unit: "us",
        better: Better::Lower,
        of: &|it| Some(it.latency.p50_ns / 1e3),
    },
    Teller {
        what: "latency, 99th percentile",
        unit: "us",
        better: Better::Lower,
        of: &|it| Some(it.latency.p99_ns / 1e3),
    },
];

impl Finds for Report {
    fn findings(&self) -> Findings {
        let rows = side_by_side(&self.rows);
        let settings = &self.settings;
        let who = self.contestants.iter();
        Findings {
            schema: super::SCHEMA.to_owned(),
            scenario: "blk".to_owned(),
            host: self.host.clone(),
            method: method(
                settings.rounds,
                settings.seconds,
                settings.undisturbed,
                settings.keep_awake,
            ),
            complete: self.complete,
            skipped: skipped(who.map(|it| (it.target.to_string(), &*it.name, it.skipped.as_ref()))),
            groups: [
                groups(&rows, name, placed, &FIGURES, |it| Some(it.latency)),
                growing(&self.rows),
            ]
            .concat(),
            verdicts: self.verdicts.clone(),
        }
    }
}

/// A row in the group of a way of waiting.
type Placed<'a> = (Mode, &'a Row);

/// In the order of groups. A load's rows come contestant by contestant, each with its ways of waiting; fio, which
/// has no ring, stands beside each way.
fn side_by_side(rows: &[Row]) -> Vec<Placed<'_>> {
    let mut all = Vec::new();
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let same = |it: &&Row| (it.target, it.workload) == (first.target, first.workload);
        let (load, after) = rest.split_at(rest.iter().take_while(same).count());
        for way in [Mode::Eventfd, Mode::Polling] {
            if load.iter().any(|it| it.mode == way) {
                let its = |it: &&Row| it.mode == way || it.mode == Mode::Host;
                all.extend(load.iter().filter(its).map(|row| (way, row)));
            }
        }
        rest = after;
    }
    all
}

fn name((way, row): &Placed<'_>) -> String {
    format!("{}/{}, {way}", row.target, row.name)
}

fn placed<'a>((_, row): &'a Placed<'_>) -> Seat<'a, Sample, Summary> {
    seat(row)
}

fn seat(row: &Row) -> Seat<'_, Sample, Summary> {
    Seat {
        who: row.contestant.clone(),
        role: row.role,
        outcome: &row.outcome,
    }
}

/// What loads of the same kind have more or less of.
struct Axis {
    along: &'static str,
    at: fn(&Workload) -> u32,
    /// The kind: the load but for that.
    kind: fn(&Workload) -> Workload,
    name: fn(&Workload) -> String,
}

const AXES: [Axis; 2] = [
    Axis {
        along: "requests in flight",
        at: |it| it.depth.into(),
        kind: |it| Workload { depth: 1, ..*it },
        name: |kind| format!("{} by depth", kind.stem()),
    },
    Axis {
        along: "queues",
        at: |it| it.queues.into(),
        kind: |it| Workload { queues: 1, ..*it },
        name: |kind| format!("{} by queues", kind.name()),
    },
];

/// Curves of loads that differ in depth or queues alone.
fn growing(rows: &[Row]) -> Vec<Group> {
    let mut found: Vec<Group> = Vec::new();
    for row in rows.iter().filter(|row| row.mode != Mode::Host) {
        for axis in &AXES {
            let kind = (axis.kind)(&row.workload);
            let name = format!("{}/{}, {}", row.target, (axis.name)(&kind), row.mode);
            if found.iter().any(|it| it.name == name) {
                continue;
            }
            let curves = along(axis, rows, row);
            if !curves.is_empty() {
                found.push(Group {
                    name,
                    figures: Vec::new(),
                    curves,
                });
            }
        }
    }
    found
}

/// Those of one row's kind. fio, which has no ring, stands beside each way of waiting.
fn along(axis: &Axis, rows: &[Row], one: &Row) -> Vec<Curve> {
    let kind = (axis.kind)(&one.workload);
    let same = rows.iter().filter(|it| {
        let mode = it.mode == one.mode || it.mode == Mode::Host;
        it.target == one.target && mode && (axis.kind)(&it.workload) == kind
    });
    let scaled = same.map(|it| Scaled {
        at: (axis.at)(&it.workload),
        seat: seat(it),
    });
    scaling(axis.along, scaled.collect(), &FIGURES, |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::blk::fixture::row;
    use crate::scenario::{Outcome, Role};

    fn depths(queues: u16, depths: &[u16]) -> Vec<Row> {
        let rows = depths.iter().map(|&depth| {
            let mut row = row("ringside", Role::Ours, Mode::Eventfd, f64::from(depth), 1.0);
            row.workload = Workload {
                depth,
                queues,
                ..row.workload
            };
            row.name = row.workload.name();
            row
        });
        rows.collect()
    }

    #[test]
    fn contestants_meet_in_each_way_of_waiting() {
        let ways = [Mode::Eventfd, Mode::Polling];
        let daemon = |who, role| ways.map(|way| row(who, role, way, 1.0, 1.0)).to_vec();
        let rows = [
            daemon("ringside", Role::Ours),
            daemon("qsd native", Role::Peer),
            vec![row("fio io_uring", Role::Limit, Mode::Host, 1.0, 1.0)],
        ];
        let rows = rows.concat();
        let rows = side_by_side(&rows);
        let found = groups(&rows, name, placed, &FIGURES, |it| Some(it.latency));
        let names: Vec<_> = found.iter().map(|it| it.name.as_str()).collect();
        let wanted = ways.map(|way| format!("tmpfs/4k-randread-d32, {way}"));
        assert_eq!(names, wanted);
        for group in found {
            let who: Vec<_> = group.figures[0].entries.iter().map(|it| &*it.who).collect();
            assert_eq!(who, ["ringside", "qsd native", "fio io_uring"]);
        }
    }

    #[test]
    fn a_load_at_which_all_fail_says_why() {
        let mut failed = row("ringside", Role::Ours, Mode::Eventfd, 1.0, 1.0);
        failed.outcome = Outcome::Failed {
            reason: "it ended".into(),
        };
        let rows = [failed];
        let rows = side_by_side(&rows);
        let found = groups(&rows, name, placed, &FIGURES, |it| Some(it.latency));
        let [figure] = found[0].figures.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(figure.entries[0].failure.as_deref(), Some("it ended"));
    }

    #[test]
    fn three_depths_make_a_curve_and_two_do_not() {
        assert!(growing(&depths(1, &[1, 32])).is_empty());
        // One depth of another number of queues is none of it.
        let rows = [depths(1, &[4, 1, 32]), depths(2, &[8])].concat();
        let groups = growing(&rows);
        assert_eq!(groups.len(), 1);
        assert!(
            groups[0].name.ends_with("4k-randread by depth, eventfd"),
            "{}",
            groups[0].name
        );
        let curve = &groups[0].curves[0];
        assert_eq!(curve.at, ["1", "4", "32"]);
        assert_eq!(curve.lines[0].points.concat(), [1.0, 4.0, 32.0]);
    }
}
