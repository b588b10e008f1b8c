//! Containers' cgroups, as the kernel's Documentation/admin-guide/cgroup-v2.rst has them.

mod tree;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use ringside_protocol::agent::{BlockStats, NetworkStats, StatsResponse};

use super::error::{Error, Result};
use super::layout::{CGROUPS, cgroup_directory};

/// How long freezing may take: a process in a file system's code is not stopped before it leaves it.
const FREEZES_WITHIN: Duration = Duration::from_secs(10);

/// How long the machine's end waits for containers' processes.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// How long a cgroup that goes away may be held up by processes that were killed.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// How deep below a container's own cgroups its processes are looked for: who may make them chooses.
const DEEPEST: usize = 8;

/// Hands every controller there is down to the pods' cgroups, and makes theirs.
pub(super) fn prepare() -> io::Result<()> {
    hand_down(Path::new(CGROUPS))?;
    let pod = Path::new(CGROUPS).join("pod");
    fs::create_dir_all(&pod)?;
    hand_down(&pod)
}

fn hand_down(directory: &Path) -> io::Result<()> {
    let controllers = fs::read_to_string(directory.join("cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        // Each alone: one that cannot be handed down is no reason to do without the others.
        let _ = fs::write(
            directory.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
    Ok(())
}

/// Kills every process of a container. One that has no cgroup has none.
pub(super) fn kill(container: &str) {
    let _ = fs::write(cgroup_directory(container).join("cgroup.kill"), "1");
}

/// Kills every process of every container, and waits a while until they are gone.
pub(super) fn kill_all() {
    let pod = Path::new(CGROUPS).join("pod");
    let _ = fs::write(pod.join("cgroup.kill"), "1");
    let deadline = Instant::now() + KILLED_WITHIN;
    while event(&pod, "populated") == Some(1) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a container is paused. What starts in it then would not get far.
pub(super) fn is_frozen(container: &str) -> bool {
    event(&cgroup_directory(container), "frozen") == Some(1)
}

/// Whether no process of it is left.
pub(super) fn is_empty(container: &str) -> bool {
    event(&cgroup_directory(container), "populated") != Some(1)
}

/// Removes the cgroups that a container made in its own. It has no process left.
pub(super) fn remove_inner(container: &str) -> io::Result<()> {
    tree::remove_below(&cgroup_directory(container), EMPTY_WITHIN)
}

/// Removes a container's cgroup with all that is in it, if there is one, once what was killed in it is gone.
pub(super) fn remove(container: &str) -> io::Result<()> {
    let deadline = Instant::now() + EMPTY_WITHIN;
    while !is_empty(container) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    remove_inner(container)?;
    match fs::remove_dir(cgroup_directory(container)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn event(directory: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(directory.join("cgroup.events")).ok()?;
    keyed(&text).remove(name)
}

/// Stops every process of a container, or lets it go on, and waits until that is so.
pub(super) fn freeze(container: &str, frozen: bool) -> Result<()> {
    let directory = cgroup_directory(container);
    let wanted = u64::from(frozen);
    fs::write(directory.join("cgroup.freeze"), wanted.to_string())
        .with_context(|| format!("cannot write cgroup.freeze of container {container:?}"))?;
    let deadline = Instant::now() + FREEZES_WITHIN;
    while event(&directory, "frozen") != Some(wanted) {
        if Instant::now() > deadline {
            let _ = fs::write(directory.join("cgroup.freeze"), "0");
            return Err(
                anyhow!("container {container:?} did not stop within {FREEZES_WITHIN:?}").into(),
            );
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Ids of a container's processes, those in cgroups of its own included.
pub(super) fn processes(container: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    let mut directories = vec![(cgroup_directory(container), 0)];
    while let Some((directory, depth)) = directories.pop() {
        match fs::read_to_string(directory.join("cgroup.procs")) {
            Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
            // A cgroup within may go meanwhile, or be of the kind that has threads only.
            Err(_) if depth > 0 => continue,
            Err(error) => return Err(read_error("cgroup.procs", container, error)),
        }
        if depth < DEEPEST {
            directories.extend(below(&directory).map(|inner| (inner, depth + 1)));
        }
    }
    // A process outside of the reader's name space reads as 0; the agent's sees all.
    found.retain(|&pid| pid != 0);
    Ok(found)
}

fn below(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

fn read_error(file: &str, container: &str, error: io::Error) -> Error {
    let error = anyhow::Error::new(error);
    error
        .context(format!("cannot read {file} of container {container:?}"))
        .into()
}

/// How often the kernel killed something of a container's for want of memory.
pub(super) fn oom_kills(container: &str) -> u64 {
    let text = fs::read_to_string(cgroup_directory(container).join("memory.events"));
    keyed(&text.unwrap_or_default())
        .remove("oom_kill")
        .unwrap_or_default()
}

/// What a container used so far. What its controllers do not count is 0.
pub(super) fn stats(container: &str) -> Result<StatsResponse> {
    let directory = cgroup_directory(container);
    let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let number = |file: &str| read(file).trim().parse().unwrap_or_default();
    let cpu = fs::read_to_string(directory.join("cpu.stat"))
        .map_err(|error| read_error("cpu.stat", container, error))?;
    let cpu = keyed(&cpu);
    let of_cpu = |key: &str| cpu.get(key).copied().unwrap_or_default();
    let mut stats = StatsResponse::new();
    stats.cpu_usage_us = of_cpu("usage_usec");
    stats.cpu_user_us = of_cpu("user_usec");
    stats.cpu_system_us = of_cpu("system_usec");
    stats.cpu_periods = of_cpu("nr_periods");
    stats.cpu_throttled_periods = of_cpu("nr_throttled");
    stats.cpu_throttled_us = of_cpu("throttled_usec");
    stats.memory_usage_bytes = number("memory.current");
    // "max" is no number: no limit.
    stats.memory_limit_bytes = number("memory.max");
    stats.memory_stat = keyed(&read("memory.stat"));
    stats.memory_events = keyed(&read("memory.events"));
    stats.pids_current = number("pids.current");
    stats.pids_limit = number("pids.max");
    stats.block = read("io.stat").lines().filter_map(block).collect();
    let network = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    stats.network = network.lines().filter_map(interface).collect();
    Ok(stats)
}

/// Lines of a name and a number.
fn keyed(text: &str) -> HashMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

/// A line of io.stat: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn block(line: &str) -> Option<BlockStats> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let mut stats = BlockStats::new();
    stats.major = major.parse().ok()?;
    stats.minor = minor.parse().ok()?;
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let value = value.parse().unwrap_or_default();
        match key {
            "rbytes" => stats.read_bytes = value,
            "wbytes" => stats.written_bytes = value,
            "rios" => stats.reads = value,
            "wios" => stats.writes = value,
            _ => {}
        }
    }
    Some(stats)
}

/// A line of /proc/net/dev (proc_pid_net(5)): `eth0: BYTES PACKETS ERRORS DROPPED ...`, eight numbers of what was
/// received, then as many of what was sent.
fn interface(line: &str) -> Option<NetworkStats> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers
        .split_whitespace()
        .map_while(|number| number.parse().ok())
        .collect();
    let name = name.trim();
    if name == "lo" || numbers.len() < 12 {
        return None;
    }
    let mut stats = NetworkStats::new();
    stats.name = name.to_owned();
    stats.received_bytes = numbers[0];
    stats.received_packets = numbers[1];
    stats.received_errors = numbers[2];
    stats.received_dropped = numbers[3];
    stats.sent_bytes = numbers[8];
    stats.sent_packets = numbers[9];
    stats.sent_errors = numbers[10];
    stats.sent_dropped = numbers[11];
    Some(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read() {
        let stats = interface("  eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0").unwrap();
        assert_eq!((stats.name.as_str(), stats.received_bytes), ("eth0", 10));
        assert_eq!((stats.sent_bytes, stats.sent_dropped), (50, 8));
        for other in [
            "    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
            "Inter-|   Receive",
            "eth0: 1 2",
        ] {
            assert!(interface(other).is_none(), "{other}");
        }
    }

    #[test]
    fn keyed_lines_are_read() {
        let read = keyed("oom 1\noom_kill 2\nnot a number\nmax max\n");
        assert_eq!((read["oom"], read["oom_kill"], read.len()), (1, 2, 2));
    }

    #[test]
    fn io_stat_is_read() {
        let stats = block("254:16 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=0 dios=0").unwrap();
        assert_eq!((stats.major, stats.minor), (254, 16));
        assert_eq!(
            (
                stats.read_bytes,
                stats.written_bytes,
                stats.reads,
                stats.writes
            ),
            (4096, 512, 1, 2)
        );
        for broken in ["", "8 rbytes=1", "a:b rbytes=1"] {
            assert!(block(broken).is_none(), "{broken:?}");
        }
    }
}
