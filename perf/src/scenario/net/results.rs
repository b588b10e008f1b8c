//! What a run of `ringside-perf net` writes: the schema of `--json`.

use serde::{Deserialize, Serialize};

use super::guest::GuestRow;
use super::workload::{Target, Workload};
use super::{Role, Verdict};
use crate::host::HostFacts;
use crate::measure::{Latency, Method};
use crate::statistics::Spread;

/// Name and version of this schema.
pub(super) const SCHEMA: &str = "ringside-perf/net/1";

/// A whole run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// `ringside-perf/net/1`.
    pub schema: String,
    /// The machine.
    pub host: HostFacts,
    /// How it was measured.
    pub settings: Settings,
    /// Whether the run came to its end; if not, the workload under way is missing and all after it.
    pub complete: bool,
    /// Who took part in which target, and who could not.
    pub contestants: Vec<ContestantFacts>,
    /// One row for each contestant, target and workload.
    pub rows: Vec<Row>,
    /// The same for guests.
    pub guests: Vec<GuestRow>,
    /// The aims and whether they are met.
    pub verdicts: Vec<Verdict>,
}

/// How a run measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Settings {
    /// Rounds; in each, every contestant has a turn.
    pub rounds: u32,
    /// Seconds of a turn that count.
    pub seconds: f64,
    /// Percent of a core that others could use before a turn was taken again.
    pub undisturbed: Option<f64>,
    /// Whether threads of the lowest priority kept the processors from halting.
    pub keep_awake: bool,
    /// What counted system calls; nothing where neither tool works.
    pub system_calls_by: Option<Method>,
}

/// A contestant of one target.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ContestantFacts {
    /// Target.
    pub target: Target,
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// The command it was started with.
    pub command: String,
    /// What it says of its version.
    pub version: Option<String>,
    /// Why it takes no part.
    pub skipped: Option<String>,
}

/// A contestant under one load.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// Target.
    pub target: Target,
    /// The workload's name.
    pub name: String,
    /// Workload.
    pub workload: Workload,
    /// The contestant's name.
    pub contestant: String,
    /// Its role.
    pub role: Role,
    /// What came out.
    pub outcome: Outcome,
    /// For our daemon: next to every other.
    pub against: Vec<Comparison>,
}

/// What came out of a row.
pub type Outcome = super::super::Outcome<Sample, Summary>;

/// One turn.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sample {
    /// Frames that passed; of echoes, answers.
    pub packets: u64,
    /// Frames per second.
    pub rate: f64,
    /// Their bits, without headers of virtio, in 10^9 a second.
    pub gbit_per_s: f64,
    /// From sending an echo to receiving its answer.
    pub latency: Option<Latency>,
    /// Processor time of the daemon (or of the loop on the bare tap) for each frame, in microseconds.
    pub cpu_us: f64,
    /// Context switches of the daemon for each frame.
    pub switches: f64,
    /// Percent of one processor that others used meanwhile.
    pub others_percent: f64,
}

/// A row's figures over the rounds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Summary {
    /// Frames per second.
    pub rate: Spread,
    /// 10^9 bits per second.
    pub gbit_per_s: Spread,
    /// Median latency in microseconds, of echoes.
    pub p50_us: Option<Spread>,
    /// 99th percentile in microseconds, of echoes.
    pub p99_us: Option<Spread>,
    /// Processor microseconds for each frame.
    pub cpu_us: Spread,
    /// Context switches for each frame.
    pub switches: Spread,
    /// Percent of one processor that others used meanwhile.
    pub others_percent: Spread,
}

/// Our daemon next to another contestant, round by round.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Comparison {
    /// The other.
    pub with: String,
    /// Our rate over its rate.
    pub rate: Spread,
    /// Our processor time for each frame over its; nothing where its was too short to see.
    pub cpu: Option<Spread>,
    /// Our median latency over its, of echoes.
    pub p50: Option<Spread>,
}

impl Summary {
    /// Boils samples down.
    #[must_use]
    pub fn of(samples: &[Sample]) -> Option<Self> {
        let of = |figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
        let latency = |figure: fn(&Latency) -> f64| {
            Spread::of(
                samples
                    .iter()
                    .filter_map(|it| it.latency.as_ref())
                    .map(figure),
            )
        };
        Some(Self {
            rate: of(|it| it.rate)?,
            gbit_per_s: of(|it| it.gbit_per_s)?,
            p50_us: latency(|it| it.p50_ns / 1e3),
            p99_us: latency(|it| it.p99_ns / 1e3),
            cpu_us: of(|it| it.cpu_us)?,
            switches: of(|it| it.switches)?,
            others_percent: of(|it| it.others_percent)?,
        })
    }
}

impl Comparison {
    /// Pairs two contestants' rounds.
    #[must_use]
    pub fn of(ours: &[Sample], with: &Row) -> Option<Self> {
        let ratio = |figure: fn(&Sample) -> f64| {
            let figures = |samples: &[Sample]| samples.iter().map(figure).collect::<Vec<_>>();
            Spread::of_ratios(&figures(ours), &figures(with.outcome.samples()))
        };
        Some(Self {
            with: with.contestant.clone(),
            rate: ratio(|it| it.rate)?,
            cpu: ratio(|it| it.cpu_us),
            p50: ratio(|it| it.latency.map_or(f64::NAN, |latency| latency.p50_ns)),
        })
    }
}
