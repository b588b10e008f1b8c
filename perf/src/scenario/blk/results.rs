//! What a run of `ringside-perf blk` writes: the schema of `--json`.

use serde::{Deserialize, Serialize};

use super::workload::{Mode, Target, Workload};
use super::{Role, Verdict};
use crate::host::HostFacts;
use crate::measure::{Latency, Method};
use crate::statistics::Spread;

/// Name and version of this schema.
pub(super) const SCHEMA: &str = "ringside-perf/blk/1";

/// A whole run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// `ringside-perf/blk/1`.
    pub schema: String,
    /// The machine.
    pub host: HostFacts,
    /// How it was measured.
    pub settings: Settings,
    /// Whether the run came to its end; if not, the workload under way is missing and all after it.
    pub complete: bool,
    /// Who took part in which target, and who could not.
    pub contestants: Vec<ContestantFacts>,
    /// One row for each contestant, target, workload and mode.
    pub rows: Vec<Row>,
    /// What daemons cost while nothing is asked of them.
    pub idle: Vec<Idle>,
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
    /// Seconds before them that do not.
    pub warm_up_seconds: f64,
    /// Percent of a core that others could use before a turn was taken again.
    pub undisturbed: Option<f64>,
    /// Whether threads of the lowest priority kept the processors from halting.
    pub keep_awake: bool,
    /// Bytes of the disk.
    pub bytes: u64,
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
    /// The command it was started with; for fio, the program.
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
    /// How the driver learns of completions.
    pub mode: Mode,
    /// The contestant's name.
    pub contestant: String,
    /// Its role.
    pub role: Role,
    /// What came out.
    pub outcome: Outcome,
    /// For our daemon: next to the peer with the highest rate in this mode.
    pub against_peer: Option<Comparison>,
    /// For our daemon: next to fio on io_uring.
    pub against_fio: Option<Comparison>,
}

/// What came out of a row.
pub type Outcome = super::super::Outcome<Sample, Summary>;

/// One turn.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sample {
    /// Requests completed.
    pub requests: u64,
    /// Requests per second.
    pub iops: f64,
    /// Latency from submission to completion.
    pub latency: Latency,
    /// Processor time of the daemon (or of fio) for each request, in microseconds.
    pub cpu_us: f64,
    /// Context switches of the daemon (or of fio) for each request.
    pub switches: f64,
    /// Percent of one processor that others used meanwhile.
    pub others_percent: f64,
}

/// A row's figures over the rounds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Summary {
    /// Requests per second.
    pub iops: Spread,
    /// Megabytes (10^6 bytes) per second.
    pub mb_per_s: Spread,
    /// Median latency in microseconds.
    pub p50_us: Spread,
    /// 99th percentile in microseconds.
    pub p99_us: Spread,
    /// 99.9th percentile in microseconds.
    pub p999_us: Spread,
    /// Processor microseconds for each request.
    pub cpu_us: Spread,
    /// Context switches for each request.
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
    pub iops: Spread,
    /// Our median latency over its median latency.
    pub p50: Option<Spread>,
    /// Our processor time for each request over its; nothing where its was too short to see.
    pub cpu: Option<Spread>,
}

/// A daemon with a front end connected and nothing to do.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Idle {
    /// Target.
    pub target: Target,
    /// The daemon.
    pub contestant: String,
    /// Its role.
    pub role: Role,
    /// Percent of one processor.
    pub cpu_percent: f64,
    /// Seconds watched.
    pub seconds: f64,
}

impl Summary {
    /// Boils samples down.
    #[must_use]
    pub fn of(samples: &[Sample], block: u32) -> Option<Self> {
        let of = |figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
        let megabytes = f64::from(block) / 1e6;
        Some(Self {
            iops: of(|it| it.iops)?,
            mb_per_s: Spread::of(samples.iter().map(|it| it.iops * megabytes))?,
            p50_us: of(|it| it.latency.p50_ns / 1e3)?,
            p99_us: of(|it| it.latency.p99_ns / 1e3)?,
            p999_us: of(|it| it.latency.p999_ns / 1e3)?,
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
            iops: ratio(|it| it.iops)?,
            p50: ratio(|it| it.latency.p50_ns),
            cpu: ratio(|it| it.cpu_us),
        })
    }
}
