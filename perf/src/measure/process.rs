//! Processor time and context switches of a daemon: all threads of it and of its children.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sys::cpu_clock;

/// A daemon's process and its children (a sandbox may fork).
#[derive(Clone, Debug)]
pub struct Processes {
    pids: Vec<u32>,
}

/// What processes have used up to now, or between two readings.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Cost {
    /// Processor time, user and system, in nanoseconds.
    pub cpu_ns: u64,
    /// Context switches, voluntary and not.
    pub switches: u64,
}

impl Processes {
    /// A process and its present descendants.
    #[must_use]
    pub fn of(root: u32) -> Self {
        let mut pids = vec![root];
        let mut next = 0;
        while let Some(&pid) = pids.get(next) {
            pids.extend(children(pid));
            next += 1;
        }
        Self { pids }
    }

    /// A process without its descendants.
    #[must_use]
    pub fn one(pid: u32) -> Self {
        Self { pids: vec![pid] }
    }

    /// The process ids.
    #[must_use]
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Processor time in nanoseconds of those threads whose names are `wanted`.
    #[must_use]
    pub fn threads_cpu_ns(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        let tasks = self.pids.iter().flat_map(|&pid| tasks(pid));
        let named = tasks.filter(|task| {
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            wanted(name.trim_end())
        });
        named.map(|task| on_processor(&task)).sum()
    }

    /// What they have used since they started.
    ///
    /// # Errors
    /// When the first process has ended.
    pub fn cost(&self) -> io::Result<Cost> {
        let mut cost = Cost::default();
        for (index, &pid) in self.pids.iter().enumerate() {
            match cpu_clock::process_nanoseconds(pid) {
                Ok(cpu_ns) => cost.cpu_ns += cpu_ns,
                Err(error) if index == 0 => return Err(error),
                // A child may come and go.
                Err(_) => {}
            }
            cost.switches += switches(pid);
        }
        Ok(cost)
    }
}

impl Cost {
    /// What was used since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }
}

fn tasks(pid: u32) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    entries.flatten().map(|entry| entry.path())
}

fn children(pid: u32) -> Vec<u32> {
    let listed = |task: &Path| fs::read_to_string(task.join("children")).unwrap_or_default();
    let pids = tasks(pid).map(|task| {
        let text = listed(&task);
        text.split_ascii_whitespace()
            .flat_map(str::parse)
            .collect::<Vec<u32>>()
    });
    pids.flatten().collect()
}

/// The first field of `/proc/PID/task/TID/schedstat` (Documentation/scheduler/sched-stats.rst).
fn on_processor(task: &Path) -> u64 {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    let first = text.split_ascii_whitespace().next();
    first.and_then(|first| first.parse().ok()).unwrap_or(0)
}

fn switches(pid: u32) -> u64 {
    let of_task = |task: std::path::PathBuf| {
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        switches_in(&status)
    };
    tasks(pid).map(of_task).sum()
}

/// `voluntary_ctxt_switches` and `nonvoluntary_ctxt_switches` (proc(5), `/proc/PID/status`).
fn switches_in(status: &str) -> u64 {
    let counted = |line: &str| {
        let (key, value) = line.split_once(':')?;
        key.ends_with("voluntary_ctxt_switches")
            .then(|| value.trim().parse::<u64>().ok())?
    };
    status.lines().filter_map(counted).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_switches_count() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(switches_in(status), 12);
    }

    #[test]
    fn a_child_belongs_to_its_parent() {
        let mut child = std::process::Command::new("sleep")
            .arg("10")
            .spawn()
            .unwrap();
        let processes = Processes::of(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(processes.pids().contains(&child.id()));
        assert!(processes.cost().unwrap().cpu_ns > 0);
    }

    #[test]
    fn threads_are_told_apart_by_name() {
        let me = Processes::of(std::process::id());
        let all = me.threads_cpu_ns(|_| true);
        assert!(all > 0);
        assert_eq!(me.threads_cpu_ns(|name| name == "no such thread"), 0);
    }

    #[test]
    fn sleeping_switches() {
        let me = Processes::of(std::process::id());
        let before = me.cost().unwrap();
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(me.cost().unwrap().since(&before).switches >= 5);
    }
}
