//! Rows for tests.

use super::results::{Outcome, Row, Sample, Summary};
use super::workload::{Mode, Target, Workload};
use super::{Role, SystemCalls};
use crate::measure::{Latency, Method};

/// One round of 4 KiB random reads at depth 32 on tmpfs.
pub(crate) fn row(contestant: &str, role: Role, mode: Mode, iops: f64, cpu_us: f64) -> Row {
    let workload = Workload::ALL[2];
    let sample = Sample {
        requests: 1000,
        iops,
        latency: Latency {
            p50_ns: 1e3,
            p99_ns: 2e3,
            p999_ns: 3e3,
            ..Latency::default()
        },
        cpu_us,
        switches: 0.0,
        others_percent: 0.0,
    };
    Row {
        target: Target::Tmpfs,
        name: workload.name(),
        workload,
        mode,
        contestant: contestant.into(),
        role,
        outcome: Outcome::Measured {
            samples: vec![sample],
            summary: Box::new(Summary::of(&[sample], workload.block).unwrap()),
            system_calls: Some(SystemCalls {
                by: Method::Perf,
                per_request: 0.1,
                requests: 1000,
            }),
        },
        against_peer: None,
        against_fio: None,
    }
}
