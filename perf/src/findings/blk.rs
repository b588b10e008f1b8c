//! Disks.

use super::{Better, Findings, Finds, Seat, Teller, groups, method, skipped};
use crate::scenario::blk::{Report, Row, Sample, Summary};

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
        let name = |row: &Row| format!("{}/{}, {}", row.target, row.name, row.mode);
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
            groups: groups(&self.rows, name, seat, &FIGURES),
            verdicts: self.verdicts.clone(),
        }
    }
}

fn seat(row: &Row) -> Seat<'_, Sample, Summary> {
    Seat {
        who: row.contestant.clone(),
        role: row.role,
        outcome: &row.outcome,
    }
}
