//! What a guest's turns gave: a part of the schema of `--json`.

use serde::{Deserialize, Serialize};

use super::load::GuestLoad;
use crate::measure::Latency;
use crate::scenario::net::Role;
use crate::scenario::net::workload::Target;
use crate::statistics::Spread;

/// A guest on one contestant's device under one load.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct GuestRow {
    /// Which kind of guest.
    pub target: Target,
    /// Load.
    pub load: GuestLoad,
    /// The contestant's name.
    pub contestant: String,
    /// Its role.
    pub role: Role,
    /// What came out.
    pub outcome: GuestOutcome,
    /// For our daemon: next to every other.
    pub against: Vec<GuestComparison>,
}

/// What came out of a row.
pub type GuestOutcome = crate::scenario::Outcome<GuestSample, GuestSummary>;

/// One turn. Processor seconds are for each GiB of a stream, or for 1,000 pings.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct GuestSample {
    /// What the stream's receiver got, in 10^9 bits a second; 0 for pings.
    pub gbit_per_s: f64,
    /// Of pings, as ping(8) says: it counts in microseconds.
    pub latency: Option<Latency>,
    /// Of hypervisor, guest and daemon together.
    pub cpu_s: f64,
    /// Of these, what did not run the guest's processors: the daemon and the hypervisor's other
    /// threads, its device among them. Nothing where guest and device share threads (UML).
    pub device_cpu_s: Option<f64>,
    /// Of the daemon alone.
    pub daemon_cpu_s: Option<f64>,
    /// Percent of one processor that others used meanwhile; iperf3 or ping on the host is not one of them.
    pub others_percent: f64,
}

/// A row's figures over the rounds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct GuestSummary {
    /// 10^9 bits per second.
    pub gbit_per_s: Spread,
    /// Median round trip of pings in microseconds.
    pub p50_us: Option<Spread>,
    /// 99th percentile of it.
    pub p99_us: Option<Spread>,
    /// See [`GuestSample::cpu_s`].
    pub cpu_s: Spread,
    /// See [`GuestSample::device_cpu_s`].
    pub device_cpu_s: Option<Spread>,
    /// See [`GuestSample::daemon_cpu_s`].
    pub daemon_cpu_s: Option<Spread>,
    /// Percent of one processor that others used meanwhile.
    pub others_percent: Spread,
}

/// Our daemon next to another contestant, round by round.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct GuestComparison {
    /// The other.
    pub with: String,
    /// Our rate over its, of streams.
    pub rate: Option<Spread>,
    /// Our median round trip over its, of pings.
    pub p50: Option<Spread>,
    /// All our processor time over all its.
    pub cpu: Option<Spread>,
    /// Our device's over its.
    pub device_cpu: Option<Spread>,
}

impl GuestSample {
    fn p50_us(&self) -> f64 {
        self.latency.map_or(f64::NAN, |it| it.p50_ns / 1e3)
    }

    fn p99_us(&self) -> f64 {
        self.latency.map_or(f64::NAN, |it| it.p99_ns / 1e3)
    }
}

impl GuestSummary {
    /// Boils samples down.
    #[must_use]
    pub fn of(samples: &[GuestSample]) -> Option<Self> {
        let of = |figure: fn(&GuestSample) -> f64| Spread::of(samples.iter().map(figure));
        Some(Self {
            gbit_per_s: of(|it| it.gbit_per_s)?,
            p50_us: of(GuestSample::p50_us),
            p99_us: of(GuestSample::p99_us),
            cpu_s: of(|it| it.cpu_s)?,
            device_cpu_s: of(|it| it.device_cpu_s.unwrap_or(f64::NAN)),
            daemon_cpu_s: of(|it| it.daemon_cpu_s.unwrap_or(f64::NAN)),
            others_percent: of(|it| it.others_percent)?,
        })
    }
}

impl GuestComparison {
    /// Pairs two contestants' rounds.
    #[must_use]
    pub fn of(ours: &[GuestSample], with: &GuestRow) -> Option<Self> {
        let theirs = with.outcome.samples();
        if ours.is_empty() || theirs.is_empty() {
            return None;
        }
        let ratio = |figure: fn(&GuestSample) -> f64| {
            let figures = |samples: &[GuestSample]| samples.iter().map(figure).collect::<Vec<_>>();
            Spread::of_ratios(&figures(ours), &figures(theirs))
        };
        Some(Self {
            with: with.contestant.clone(),
            rate: ratio(|it| it.gbit_per_s),
            p50: ratio(GuestSample::p50_us),
            cpu: ratio(|it| it.cpu_s),
            device_cpu: ratio(|it| it.device_cpu_s.unwrap_or(f64::NAN)),
        })
    }
}
