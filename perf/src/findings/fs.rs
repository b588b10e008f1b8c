//! Files.

use super::curve::{Scaled, scaling};
use super::{Better, Findings, Finds, Group, Seat, Teller, groups, method, skipped};
use crate::scenario::fs::{Cache, Load, Report, Row, Sample, Summary};

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
        let name = |row: &Row| format!("{}/{}", row.target, row.name);
        let settings = &self.settings;
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
        let who = self.contestants.iter();
        Findings {
            schema: super::SCHEMA.to_owned(),
            scenario: "fs".to_owned(),
            host: self.host.clone(),
            method,
            complete: self.complete,
            skipped: skipped(who.map(|it| (it.target.to_string(), &*it.name, it.skipped.as_ref()))),
            groups: [
                groups(&self.rows, name, seat, &FIGURES, |it| it.latency),
                by_size(&self.rows),
            ]
            .concat(),
            verdicts: self.verdicts.clone(),
        }
    }
}

fn seat(row: &Row) -> Seat<'_, Sample, Summary> {
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

/// Curves of whole files of several sizes.
fn by_size(rows: &[Row]) -> Vec<Group> {
    let mut found: Vec<Group> = Vec::new();
    for one in rows {
        let name = format!("{}/whole files by size", one.target);
        if found.iter().any(|it| it.name == name) {
            continue;
        }
        let same = rows.iter().filter(|it| it.target == one.target);
        let sized = same.filter_map(|it| match it.load {
            Load::Whole { kib } => Some(Scaled {
                at: kib,
                seat: seat(it),
            }),
            _ => None,
        });
        let told = |kib: u32| match kib {
            0..1024 => format!("{kib} KiB"),
            _ => format!("{} MiB", kib / 1024),
        };
        let curves = scaling("size of a file", sized.collect(), &FIGURES, told);
        if !curves.is_empty() {
            found.push(Group {
                name,
                figures: Vec::new(),
                curves,
            });
        }
    }
    found
}
