//! Virtual machine monitors.

use super::{Better, Findings, Finds, Seat, Teller, groups};
use crate::scenario::boot::{Report, Row, Sample, Summary};

const FIGURES: [Teller<'static, Sample>; 6] = [
    Teller {
        what: "from exec to the guest's first process",
        unit: "ms",
        better: Better::Lower,
        of: &|it| Some(it.boot_ms),
    },
    Teller {
        what: "processor time until then, the guest's included",
        unit: "ms",
        better: Better::Lower,
        of: &|it| Some(it.boot_cpu_ms),
    },
    Teller {
        what: "from exec to the guest's first instructions",
        unit: "ms",
        better: Better::Lower,
        of: &|it| Some(it.first_ms),
    },
    Teller {
        what: "from those to the first process: the guest's kernel",
        unit: "ms",
        better: Better::Lower,
        of: &|it| Some(it.boot_ms - it.first_ms),
    },
    Teller {
        what: "processor time until those",
        unit: "ms",
        better: Better::Lower,
        of: &|it| Some(it.first_cpu_ms),
    },
    Teller {
        what: "private memory outside the guest's",
        unit: "KiB",
        better: Better::Lower,
        // Far below 2^52.
        of: &|it| u32::try_from(it.private_kib).ok().map(f64::from),
    },
];

impl Finds for Report {
    fn findings(&self) -> Findings {
        let settings = &self.settings;
        let devices = if settings.devices {
            "with disk, network and file system"
        } else {
            "without devices"
        };
        Findings {
            schema: super::SCHEMA.to_owned(),
            scenario: "boot".to_owned(),
            host: self.host.clone(),
            method: vec![format!(
                "Medians of {} rounds, in the lab (QEMU's TCG with nested KVM); {} MiB of guest memory, kernel {}, {devices}.",
                settings.rounds, settings.memory_mib, settings.kernel
            )],
            complete: self.complete,
            skipped: Vec::new(),
            groups: groups(&self.rows, |_| "boot".to_owned(), seat, &FIGURES, |_| None),
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
