//! Networks: frames by our own driver, and streams and pings of guests.

use super::{Better, Findings, Finds, Seat, Teller, groups, method, skipped};
use crate::scenario::net::{GuestRow, GuestSample, GuestSummary, Report, Row, Sample, Summary};

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
        let name = |row: &Row| format!("{}/{}", row.target, row.name);
        let frames = groups(&self.rows, name, seat, &FRAMES, |it| it.latency);
        let name = |row: &GuestRow| format!("{}/{}", row.target, row.load.name());
        let guests = groups(&self.guests, name, guest_seat, &GUESTS, |it| it.latency);
        let settings = &self.settings;
        let who = self.contestants.iter();
        Findings {
            schema: super::SCHEMA.to_owned(),
            scenario: "net".to_owned(),
            host: self.host.clone(),
            method: method(
                settings.rounds,
                settings.seconds,
                settings.undisturbed,
                settings.keep_awake,
            ),
            complete: self.complete,
            skipped: skipped(who.map(|it| (it.target.to_string(), &*it.name, it.skipped.as_ref()))),
            groups: [frames, guests].concat(),
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

fn guest_seat(row: &GuestRow) -> Seat<'_, GuestSample, GuestSummary> {
    Seat {
        who: row.contestant.clone(),
        role: row.role,
        outcome: &row.outcome,
    }
}
