//! What the kernel says of a daemon (proc(5)). What cannot be read fails the test by a panic.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "each answer is asked for to be asserted on: a test has no better use for an error"
)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::process::Daemon;

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Its threads, but for those that the kernel lends an io_uring for a while.
    pub threads: u64,
    /// Its descriptors, but for standard input, output and error.
    pub descriptors: u64,
    /// Memory that is there, guests' included, in KiB.
    pub resident_kib: u64,
    /// Memory of its own that is there, in KiB.
    pub private_kib: u64,
}

/// One process.
pub struct Process(PathBuf);

impl Process {
    /// The one that serves.
    ///
    /// # Panics
    /// When processes cannot be listed.
    pub fn serving(daemon: &Daemon) -> Self {
        Self::of(daemon.serving_pid().unwrap())
    }

    /// The one of that id.
    pub fn of(pid: u32) -> Self {
        Self(PathBuf::from(format!("/proc/{pid}")))
    }

    /// A file of its directory in /proc.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What is in such a file.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A line of `status`.
    ///
    /// # Panics
    /// When there is none.
    pub fn status(&self, field: &str) -> String {
        value(&self.text("status"), field)
    }

    /// A line of `status` that is a number, with a unit or without.
    ///
    /// # Panics
    /// When there is none.
    pub fn number(&self, field: &str) -> u64 {
        let value = self.status(field);
        value.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// What it holds.
    ///
    /// # Panics
    /// When it has gone.
    pub fn holdings(&self) -> Holdings {
        let threads = self.threads("State").into_iter();
        let own = threads.filter(|(name, _)| !name.starts_with("iou-"));
        Holdings {
            threads: own.count() as u64,
            descriptors: self.descriptors().len() as u64,
            resident_kib: self.number("VmRSS"),
            private_kib: self.number("RssAnon"),
        }
    }

    /// Lets it have `more` bytes of `resource` beyond what it has now, which `field` of `status` tells.
    ///
    /// # Panics
    /// When it has gone.
    pub fn limit(&self, resource: Resource, field: &str, more: u64) {
        self.set_limit(resource, Some((self.number(field) << 10) + more));
    }

    /// Lets it have as much of `resource` as there is.
    ///
    /// # Panics
    /// When it has gone.
    pub fn unlimit(&self, resource: Resource) {
        self.set_limit(resource, getrlimit(resource).maximum);
    }

    /// Lets it have that much of `resource`.
    ///
    /// # Panics
    /// When it has gone.
    pub fn set_limit(&self, resource: Resource, current: Option<u64>) {
        let name = self.0.file_name().unwrap().to_str().unwrap();
        let pid = Pid::from_raw(name.parse().unwrap());
        let maximum = getrlimit(resource).maximum;
        prlimit(pid, resource, Rlimit { current, maximum }).unwrap();
    }

    /// A set of capabilities: a bit for each.
    ///
    /// # Panics
    /// When there is no such set.
    pub fn capabilities(&self, field: &str) -> u64 {
        u64::from_str_radix(&self.status(field), 16).unwrap()
    }

    /// Names a namespace, the same for all processes in it.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn namespace(&self, kind: &str) -> PathBuf {
        fs::read_link(self.path("ns").join(kind)).unwrap()
    }

    /// What its descriptors are, but for standard input, output and error.
    ///
    /// # Panics
    /// When they cannot be listed.
    pub fn descriptors(&self) -> Vec<(String, PathBuf)> {
        descriptors(&self.0).unwrap()
    }

    /// A line of `status` of each thread, with the thread's name.
    ///
    /// # Panics
    /// When threads cannot be listed, or there is no such line.
    pub fn threads(&self, field: &str) -> Vec<(String, String)> {
        let tasks = fs::read_dir(self.path("task")).unwrap();
        tasks
            .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
            .map(|status| (value(&status, "Name"), value(&status, field)))
            .collect()
    }
}

impl Process {
    /// Fails unless the process has no other capabilities than these, can gain none, and every thread
    /// has a filter of system calls.
    ///
    /// # Panics
    /// Then.
    pub fn assert_powerless(&self, capabilities: u64) {
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            let has = self.capabilities(set);
            assert_eq!(has, capabilities, "{set}: {has:#x}, not {capabilities:#x}");
        }
        assert_eq!(self.capabilities("CapInh"), 0);
        assert_eq!(self.capabilities("CapAmb"), 0);
        assert_eq!(self.status("NoNewPrivs"), "1");
        for (thread, mode) in self.threads("Seccomp") {
            assert_eq!(mode, "2", "thread {thread} has no filter");
        }
    }
}

fn value(status: &str, name: &str) -> String {
    let value = field(status, name);
    value.unwrap_or_else(|| panic!("no {name}")).to_owned()
}

/// What a line of `status` says.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(value).map(str::trim)
}

/// What a process's descriptors are, but for standard input, output and error, and those closed meanwhile.
pub(crate) fn descriptors(process: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(process.join("fd"))? {
        let entry = entry?;
        let number = entry.file_name().to_string_lossy().into_owned();
        if ["0", "1", "2"].contains(&number.as_str()) {
            continue;
        }
        if let Ok(target) = fs::read_link(entry.path()) {
            found.push((number, target));
        }
    }
    Ok(found)
}
