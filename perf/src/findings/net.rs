//! Networks: frames by our own driver, and streams and pings of guests.

use super::{Better, Findings, Finds, Group, Seat, Teller, figures, method, runs_of};
use crate::scenario::net::{GuestRow, GuestSample, Report, Row, Sample};

const FRAMES: [Teller<'static, Sample>; 3] = [
    Teller {
        what: "frames",
        unit: "1/s",
        better: Better::Higher,
        of: &|it| Some(it.rate),
    },
    Teller {
        what: "processor time for a frame",
        unit: "us",
        better: Better::Lower,
        of: &|it| Some(it.cpu_us),
    },
    Teller {
        what: "round trip, median",
        unit: "us",
        better: Better::Lower,
        of: &|it| Some(it.latency?.p50_ns / 1e3),
    },
];

const GUESTS: [Teller<'static, GuestSample>; 4] = [
    Teller {
        what: "stream",
        unit: "Gbit/s",
        better: Better::Higher,
        of: &|it| (it.gbit_per_s > 0.0).then_some(it.gbit_per_s),
    },
    Teller {
        what: "round trip, median",
        unit: "us",
        better: Better::Lower,
        of: &|it| Some(it.latency?.p50_ns / 1e3),
    },
    Teller {
        what: "processor time of guest, hypervisor and daemon, for a GiB or 1,000 pings",
        unit: "s",
        better: Better::Lower,
        of: &|it| Some(it.cpu_s),
    },
    Teller {
        what: "processor time of device and daemon, for a GiB or 1,000 pings",
        unit: "s",
        better: Better::Lower,
        of: &|it| it.device_cpu_s,
    },
];

impl Finds for Report {
    fn findings(&self) -> Findings {
        let settings = &self.settings;
        let frames = runs_of(&self.rows, |row: &Row| {
            format!("{}/{}", row.target, row.name)
        });
        let frames = frames.into_iter().map(|(name, rows)| {
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
                figures: figures(&seats, &FRAMES),
            }
        });
        let guests = runs_of(&self.guests, |row: &GuestRow| {
            format!("{}/{}", row.target, row.load.name())
        });
        let guests = guests.into_iter().map(|(name, rows)| {
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
                figures: figures(&seats, &GUESTS),
            }
        });
        let skipped = self.contestants.iter().filter_map(|it| {
            let why = it.skipped.as_ref()?;
            Some(format!("{}: {}: {why}", it.target, it.name))
        });
        Findings {
            scenario: "net",
            host: self.host.clone(),
            method: method(
                settings.rounds,
                settings.seconds,
                settings.undisturbed,
                settings.keep_awake,
            ),
            complete: self.complete,
            skipped: skipped.collect(),
            groups: frames.chain(guests).collect(),
            verdicts: self.verdicts.clone(),
        }
    }
}
