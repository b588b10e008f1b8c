//! `ringside events`: what a container uses, in runc's words.

use std::time::Duration;

use containerd_shim_protos::cgroups_v2::metrics::Metrics;
use serde_json::{Value, json};

use super::state::StateRoot;
use super::status::{self, Status};
use super::{OciError, print};
use crate::options::EventsOptions;

/// Prints until the container has stopped, or once.
pub(super) fn events(root: &StateRoot, options: &EventsOptions) -> Result<(), OciError> {
    let id = &options.id;
    let (entry, record) = root.find(id)?;
    let task = status::task(root, &entry, &record)?;
    let mut killed = None;
    loop {
        let stats = match task.stats() {
            Ok(stats) => stats,
            Err(_) if killed.is_some() && Status::of(root, &entry, &record) == Status::Stopped => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let now = stats.memory_events.oom_kill;
        if killed.is_some_and(|before| before < now) {
            print(&format!("{}\n", json!({"type": "oom", "id": id})))?;
        }
        killed = Some(now);
        print(&format!("{}\n", event(id, &stats)))?;
        if options.stats {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(options.interval));
        if Status::of(root, &entry, &entry.read()?) == Status::Stopped {
            return Ok(());
        }
    }
}

/// One event of type `stats`: processor times are in nanoseconds, memory in bytes.
fn event(id: &str, stats: &Metrics) -> Value {
    let nanoseconds = |microseconds: u64| microseconds.saturating_mul(1000);
    let (cpu, memory) = (&stats.cpu, &stats.memory);
    let block = |of: fn(&containerd_shim_protos::cgroups_v2::metrics::IOEntry) -> [u64; 2]| {
        let entries = stats.io.usage.iter().flat_map(|entry| {
            let [read, write] = of(entry);
            let record = |op, value| {
                json!({"major": entry.major, "minor": entry.minor, "op": op, "value": value})
            };
            [record("Read", read), record("Write", write)]
        });
        entries.collect::<Vec<_>>()
    };
    json!({
        "type": "stats",
        "id": id,
        "data": {
            "cpu": {
                "usage": {
                    "total": nanoseconds(cpu.usage_usec),
                    "user": nanoseconds(cpu.user_usec),
                    "kernel": nanoseconds(cpu.system_usec),
                },
                "throttling": {
                    "periods": cpu.nr_periods,
                    "throttledPeriods": cpu.nr_throttled,
                    "throttledTime": nanoseconds(cpu.throttled_usec),
                },
            },
            "memory": {
                "usage": {"usage": memory.usage, "limit": memory.usage_limit},
                "cache": memory.file,
                "raw": {
                    "anon": memory.anon,
                    "file": memory.file,
                    "slab": memory.slab,
                    "shmem": memory.shmem,
                    "pgfault": memory.pgfault,
                    "pgmajfault": memory.pgmajfault,
                    "oom_kill": stats.memory_events.oom_kill,
                },
            },
            "pids": {"current": stats.pids.current, "limit": stats.pids.limit},
            "blkio": {
                "ioServiceBytesRecursive": block(|it| [it.rbytes, it.wbytes]),
                "ioServicedRecursive": block(|it| [it.rios, it.wios]),
            },
        },
    })
}
