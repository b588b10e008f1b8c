//! What a run of `ringside-perf fs` writes: the schema of `--json`.

use serde::{Deserialize, Serialize};

use super::workload::{Cache, Load, Target};
use super::{Role, Verdict};
use crate::host::HostFacts;
use crate::measure::{Latency, Method};
use crate::statistics::Spread;

/// Name and version of this schema.
pub(super) const SCHEMA: &str = "ringside-perf/fs/1";

/// A whole run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// `ringside-perf/fs/1`.
    pub schema: String,
    /// The machine.
    pub host: HostFacts,
    /// How it was measured.
    pub settings: Settings,
    /// Whether the run came to its end; if not, the workload under way is missing and all after it.
    pub complete: bool,
    /// Who took part in which target, and who could not.
    pub contestants: Vec<ContestantFacts>,
    /// One row for each contestant, target, workload and way of caching.
    pub rows: Vec<Row>,
    /// The aims and whether they are met.
    pub verdicts: Vec<Verdict>,
}

/// How a run measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Settings {
    /// Rounds; in each, every contestant has a turn.
    pub rounds: u32,
    /// Seconds of a turn of fio.
    pub seconds: f64,
    /// Percent of a core that others could use before a turn was taken again.
    pub undisturbed: Option<f64>,
    /// Whether threads of the lowest priority kept the processors from halting.
    pub keep_awake: bool,
    /// Bytes of data.
    pub bytes: u64,
    /// Files of the metadata workloads.
    pub files: u32,
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
    /// Request queues.
    pub queues: u16,
    /// The command that starts it, with `--cache auto`; nothing for the bare host.
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
    /// Load.
    pub load: Load,
    /// What the kernel may cache.
    pub cache: Cache,
    /// The contestant's name.
    pub contestant: String,
    /// Its role.
    pub role: Role,
    /// Its request queues.
    pub queues: u16,
    /// What came out.
    pub outcome: Outcome,
    /// For our daemon: next to the peer with the highest rate with the same cache.
    pub against_peer: Option<Comparison>,
}

/// What came out of a row.
pub type Outcome = super::super::Outcome<Sample, Summary>;

/// One turn.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sample {
    /// Operations done: reads or writes of a program, files, entries of a tree. One may take
    /// several FUSE requests, or none.
    pub operations: u64,
    /// Operations per second.
    pub rate: f64,
    /// fio's latencies.
    pub latency: Option<Latency>,
    /// Processor time of the daemon for each operation, in microseconds.
    pub cpu_us: Option<f64>,
    /// Processor time of the bridge's threads for each operation, in microseconds.
    pub bridge_us: Option<f64>,
    /// Context switches of the daemon for each operation.
    pub switches: Option<f64>,
    /// Percent of one processor that others used meanwhile.
    pub others_percent: f64,
}

/// A row's figures over the rounds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Summary {
    /// Operations per second.
    pub rate: Spread,
    /// Megabytes (10^6 bytes) per second, where data move.
    pub mb_per_s: Option<Spread>,
    /// Median latency in microseconds (fio).
    pub p50_us: Option<Spread>,
    /// 99th percentile in microseconds (fio).
    pub p99_us: Option<Spread>,
    /// Processor microseconds of the daemon for each operation.
    pub cpu_us: Option<Spread>,
    /// Processor microseconds of the bridge for each operation.
    pub bridge_us: Option<Spread>,
    /// Context switches of the daemon for each operation.
    pub switches: Option<Spread>,
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
    /// Our daemon's processor time for each operation over its; nothing where it has no daemon.
    pub cpu: Option<Spread>,
}

impl Row {
    /// Whether it is our daemon in its plain form, which aims and ratios speak of.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.role == Role::Ours && self.queues == 1
    }
}

impl Summary {
    /// Boils samples down; `block` is an operation's bytes, where it moves data.
    #[must_use]
    pub fn of(samples: &[Sample], block: Option<u32>) -> Option<Self> {
        let of = |figure: fn(&Sample) -> Option<f64>| Spread::of(samples.iter().filter_map(figure));
        let megabytes = block.map(|block| f64::from(block) / 1e6);
        Some(Self {
            rate: of(|it| Some(it.rate))?,
            mb_per_s: megabytes
                .and_then(|each| Spread::of(samples.iter().map(|it| it.rate * each))),
            p50_us: of(|it| Some(it.latency?.p50_ns / 1e3)),
            p99_us: of(|it| Some(it.latency?.p99_ns / 1e3)),
            cpu_us: of(|it| it.cpu_us),
            bridge_us: of(|it| it.bridge_us),
            switches: of(|it| it.switches),
            others_percent: of(|it| Some(it.others_percent))?,
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
            cpu: ratio(|it| it.cpu_us.unwrap_or(f64::NAN)),
        })
    }
}
