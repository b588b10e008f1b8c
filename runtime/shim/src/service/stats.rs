//! What a container used, in containerd's words for cgroup2.

use containerd_shim::protos::cgroups_v2::metrics::{
    CPUStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, NetworkStat, PidsStat,
};
use containerd_shim::protos::protobuf::MessageField;
use ringside_protocol::agent::{NetworkStats, StatsResponse};

/// The agent's numbers as containerd has them.
pub(super) fn metrics(stats: &StatsResponse) -> Metrics {
    Metrics {
        pids: MessageField::some(PidsStat {
            current: stats.pids_current,
            limit: stats.pids_limit,
            ..PidsStat::default()
        }),
        cpu: MessageField::some(CPUStat {
            usage_usec: stats.cpu_usage_us,
            user_usec: stats.cpu_user_us,
            system_usec: stats.cpu_system_us,
            nr_periods: stats.cpu_periods,
            nr_throttled: stats.cpu_throttled_periods,
            throttled_usec: stats.cpu_throttled_us,
            ..CPUStat::default()
        }),
        memory: MessageField::some(memory(stats)),
        memory_events: MessageField::some(memory_events(stats)),
        io: MessageField::some(io(stats)),
        network: stats.network.iter().map(network).collect(),
        ..Metrics::default()
    }
}

fn network(stats: &NetworkStats) -> NetworkStat {
    NetworkStat {
        name: stats.name.clone(),
        rx_bytes: stats.received_bytes,
        rx_packets: stats.received_packets,
        rx_errors: stats.received_errors,
        rx_dropped: stats.received_dropped,
        tx_bytes: stats.sent_bytes,
        tx_packets: stats.sent_packets,
        tx_errors: stats.sent_errors,
        tx_dropped: stats.sent_dropped,
        ..NetworkStat::default()
    }
}

fn memory(stats: &StatsResponse) -> MemoryStat {
    let of = |name: &str| stats.memory_stat.get(name).copied().unwrap_or_default();
    MemoryStat {
        usage: stats.memory_usage_bytes,
        // No limit is the largest number, as in memory.max of cgroup1.
        usage_limit: match stats.memory_limit_bytes {
            0 => u64::MAX,
            limit => limit,
        },
        anon: of("anon"),
        file: of("file"),
        kernel_stack: of("kernel_stack"),
        slab: of("slab"),
        sock: of("sock"),
        shmem: of("shmem"),
        file_mapped: of("file_mapped"),
        file_dirty: of("file_dirty"),
        file_writeback: of("file_writeback"),
        anon_thp: of("anon_thp"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        slab_reclaimable: of("slab_reclaimable"),
        slab_unreclaimable: of("slab_unreclaimable"),
        pgfault: of("pgfault"),
        pgmajfault: of("pgmajfault"),
        ..MemoryStat::default()
    }
}

fn memory_events(stats: &StatsResponse) -> MemoryEvents {
    let of = |name: &str| stats.memory_events.get(name).copied().unwrap_or_default();
    MemoryEvents {
        low: of("low"),
        high: of("high"),
        max: of("max"),
        oom: of("oom"),
        oom_kill: of("oom_kill"),
        ..MemoryEvents::default()
    }
}

fn io(stats: &StatsResponse) -> IOStat {
    let entry = |block: &ringside_protocol::agent::BlockStats| IOEntry {
        major: block.major.into(),
        minor: block.minor.into(),
        rbytes: block.read_bytes,
        wbytes: block.written_bytes,
        rios: block.reads,
        wios: block.writes,
        ..IOEntry::default()
    };
    IOStat {
        usage: stats.block.iter().map(entry).collect(),
        ..IOStat::default()
    }
}
