//! Files.

use super::{Better, Findings, Finds, Group, Seat, Teller, figures, method, runs_of};
use crate::scenario::fs::{Cache, Report, Row, Sample};

const FIGURES: [Teller<'static, Sample>; 4] = [
    Teller {
        what: "operations",
        unit: "1/s",
        better: Better::Higher,
        of: &|it| Some(it.rate),
    },
    Teller {
        what: "the daemon's processor time for an operation",
        unit: "us",
        better: Better::Lower,
        of: &|it| it.cpu_us,
    },
    Teller {
        what: "latency, median",
        unit: "us",
        better: Better::Lower,
        of: &|it| Some(it.latency?.p50_ns / 1e3),
    },
    Teller {
        what: "latency, 99th percentile",
        unit: "us",
        better: Better::Lower,
        of: &|it| Some(it.latency?.p99_ns / 1e3),
    },
];

impl Finds for Report {
    fn findings(&self) -> Findings {
        let settings = &self.settings;
        let name = |row: &Row| format!("{}/{}", row.target, row.name);
        let group = |(name, rows): (String, &[Row])| {
            let seats: Vec<_> = rows.iter().map(seat).collect();
            Group {
                name,
                figures: figures(&seats, &FIGURES),
            }
        };
        let skipped = self.contestants.iter().filter_map(|it| {
            let why = it.skipped.as_ref()?;
            Some(format!("{}: {}: {why}", it.target, it.name))
        });
        let mut method = method(
            settings.rounds,
            settings.seconds,
            settings.undisturbed,
            settings.keep_awake,
        );
        method.push(format!(
            "{} MiB of data, {} small files; the host's own kernel mounts each daemon by a FUSE bridge.",
            settings.bytes >> 20,
            settings.files
        ));
        Findings {
            scenario: "fs",
            host: self.host.clone(),
            method,
            complete: self.complete,
            skipped: skipped.collect(),
            groups: runs_of(&self.rows, name).into_iter().map(group).collect(),
            verdicts: self.verdicts.clone(),
        }
    }
}

fn seat(row: &Row) -> Seat<'_, Sample, crate::scenario::fs::Summary> {
    let who = match row.cache {
        Cache::Host => row.contestant.clone(),
        cache => format!("{}, cache={cache}", row.contestant),
    };
    Seat {
        who,
        role: row.role,
        outcome: &row.outcome,
    }
}
