//! Virtual machine monitors.

use super::{Better, Findings, Finds, Group, Seat, Teller, figures};
use crate::scenario::boot::{Report, Sample};

const FIGURES: [Teller<'static, Sample>; 5] = [
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
        let seats: Vec<_> = self
            .rows
            .iter()
            .map(|row| Seat {
                who: row.contestant.clone(),
                role: row.role,
                outcome: &row.outcome,
            })
            .collect();
        let devices = if settings.devices {
            "with disk, network and file system"
        } else {
            "without devices"
        };
        Findings {
            scenario: "boot",
            host: self.host.clone(),
            method: vec![format!(
                "Medians of {} rounds, in the lab (QEMU's TCG with nested KVM); {} MiB of guest memory, kernel {}, {devices}.",
                settings.rounds, settings.memory_mib, settings.kernel
            )],
            complete: self.complete,
            skipped: Vec::new(),
            groups: vec![Group {
                name: "boot".to_owned(),
                figures: figures(&seats, &FIGURES),
            }],
            verdicts: self.verdicts.clone(),
        }
    }
}
