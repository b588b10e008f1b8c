//! Disks.

use super::{Better, Findings, Finds, Group, Seat, Teller, figures, method, runs_of};
use crate::scenario::blk::{Report, Row, Sample};

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
        let settings = &self.settings;
        let name = |row: &Row| format!("{}/{}, {}", row.target, row.name, row.mode);
        let group = |(name, rows): (String, &[Row])| {
            let seats: Vec<_> = rows
                .iter()
                .map(|row| Seat {
                    who: row.contestant.clone(),
                    role: row.role,
                    outcome: &row.outcome,
                })
                .collect();
            Group {
                name,
                figures: figures(&seats, &FIGURES),
            }
        };
        let skipped = self.contestants.iter().filter_map(|it| {
            let why = it.skipped.as_ref()?;
            Some(format!("{}: {}: {why}", it.target, it.name))
        });
        Findings {
            scenario: "blk",
            host: self.host.clone(),
            method: method(
                settings.rounds,
                settings.seconds,
                settings.undisturbed,
                settings.keep_awake,
            ),
            complete: self.complete,
            skipped: skipped.collect(),
            groups: runs_of(&self.rows, name).into_iter().map(group).collect(),
            verdicts: self.verdicts.clone(),
        }
    }
}
