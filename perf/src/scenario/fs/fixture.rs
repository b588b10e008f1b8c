//! Rows for tests.

use super::results::{Outcome, Row, Sample, Summary};
use super::workload::{Cache, Target, Workload};
use super::{Role, SystemCalls};
use crate::measure::{Latency, Method};

/// One round of 4 KiB random reads at depth 32 on tmpfs.
pub(super) fn row(contestant: &str, role: Role, cache: Cache, rate: f64, cpu_us: f64) -> Row {
    let workload = Workload::ALL[0];
    let daemon = cache != Cache::Host;
    let sample = Sample {
        operations: 1000,
        rate,
        latency: Some(Latency {
            p50_ns: 1e3,
            p99_ns: 2e3,
            p999_ns: 3e3,
            ..Latency::default()
        }),
        cpu_us: daemon.then_some(cpu_us),
        bridge_us: daemon.then_some(2.0),
        switches: daemon.then_some(0.0),
        others_percent: 0.0,
    };
    Row {
        target: Target::Tmpfs,
        name: workload.name(),
        load: workload.load,
        cache,
        contestant: contestant.into(),
        role,
        queues: 1,
        outcome: Outcome::Measured {
            samples: vec![sample],
            summary: Box::new(Summary::of(&[sample], workload.block()).unwrap()),
            system_calls: daemon.then_some(SystemCalls {
                by: Method::Perf,
                per_request: 0.1,
                requests: 1000,
            }),
        },
        against_peer: None,
    }
}
