//! What a run found out: the JSON report, and what the text is made of.

use serde::{Deserialize, Serialize};

use crate::host::HostFacts;
use crate::scenario::{Outcome as Measured, Role, Verdict};
use crate::statistics::Spread;

/// Names the report's form.
pub(super) const SCHEMA: &str = "ringside-perf/boot/1";

/// What came out of a contestant's turns.
pub(super) type Outcome = Measured<Sample, Summary>;

/// Everything.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The machine.
    pub host: HostFacts,
    /// How it was measured.
    pub settings: Settings,
    /// False where the user ended the run.
    pub complete: bool,
    /// A row for each VMM.
    pub rows: Vec<Row>,
    /// The aims.
    pub verdicts: Vec<Verdict>,
}

/// How it was measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Settings {
    /// Rounds.
    pub rounds: u32,
    /// The guest's memory.
    pub memory_mib: u32,
    /// The guest's kernel.
    pub kernel: String,
    /// Whether disk, network and file system were attached.
    pub devices: bool,
}

/// A VMM and its figures.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// Its name.
    pub contestant: String,
    /// What it is in the comparison.
    pub role: Role,
    /// The command.
    pub command: String,
    /// Its figures.
    pub outcome: Outcome,
    /// Our time to boot by its, round by round.
    pub ours_by_it: Option<Spread>,
}

/// One turn.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sample {
    /// From exec to the first process's port write.
    pub boot_ms: f64,
    /// Processor time of the VMM then, its guest's included.
    pub boot_cpu_ms: f64,
    /// From exec to the port write of a kernel that does nothing else.
    pub first_ms: f64,
    /// Processor time of the VMM then.
    pub first_cpu_ms: f64,
    /// Dirty private memory outside the guest's.
    pub private_kib: u64,
}

/// Over the rounds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Summary {
    /// See [`Sample`].
    pub boot_ms: Spread,
    /// See [`Sample`].
    pub boot_cpu_ms: Spread,
    /// See [`Sample`].
    pub first_ms: Spread,
    /// See [`Sample`].
    pub first_cpu_ms: Spread,
    /// See [`Sample`].
    pub private_kib: Spread,
}

impl Summary {
    /// Nothing where there are no samples.
    pub(super) fn of(samples: &[Sample]) -> Option<Self> {
        let spread = |of: fn(&Sample) -> f64| Spread::of(samples.iter().map(of));
        Some(Self {
            boot_ms: spread(|it| it.boot_ms)?,
            boot_cpu_ms: spread(|it| it.boot_cpu_ms)?,
            first_ms: spread(|it| it.first_ms)?,
            first_cpu_ms: spread(|it| it.first_cpu_ms)?,
            // Far below 2^52.
            private_kib: spread(|it| u32::try_from(it.private_kib).map_or(f64::NAN, f64::from))?,
        })
    }
}
