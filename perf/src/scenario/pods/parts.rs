//! What a pod is made of, and what that holds.

use std::fs;
use std::path::Path;

use super::containerd::{Containerd, Runtime};
use super::error::Error;
use crate::measure::{Memory, Processes};

/// A mapping of that size is the guest's memory.
const GUEST_KIB: u64 = 64 << 10;

/// A process of a pod.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) pid: u32,
}

/// What processes hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) memory: Memory,
    pub(super) descriptors: u32,
    pub(super) threads: u32,
}

/// The shim, and what it says it started.
pub(super) fn of(containerd: &Containerd, runtime: Runtime, id: &str) -> Result<Vec<Part>, Error> {
    let shim = Part {
        name: "shim".to_owned(),
        pid: containerd.shim(id)?,
    };
    let mut parts = vec![shim];
    if runtime != Runtime::Runc {
        let files = fs::read_dir(containerd.pod(id))
            .into_iter()
            .flatten()
            .flatten();
        let mut named: Vec<Part> = files.filter_map(|file| part(&file.path())).collect();
        named.sort_by(|one, other| one.name.cmp(&other.name));
        parts.extend(named);
    }
    Ok(parts)
}

/// `NAME.pid`: the process, and when it started.
fn part(path: &Path) -> Option<Part> {
    let name = path.file_name()?.to_str()?.strip_suffix(".pid")?;
    let text = fs::read_to_string(path).ok()?;
    Some(Part {
        name: name.to_owned(),
        pid: text.split_whitespace().next()?.parse().ok()?,
    })
}

impl Part {
    /// With its children: a sandbox may fork. A part's part that is a part of its own does not count twice.
    pub(super) fn held(&self, others: &[Part]) -> Result<Held, Error> {
        let mut held = Held::default();
        for pid in self.processes(others) {
            match one(pid) {
                Ok(it) => held.join(it),
                // A child may come and go.
                Err(error) if pid == self.pid => return Err(Error::Measure { pid, source: error }),
                Err(_) => {}
            }
        }
        Ok(held)
    }

    /// How many processes it is.
    pub(super) fn processes(&self, others: &[Part]) -> Vec<u32> {
        let all = Processes::of(self.pid);
        let others: Vec<u32> = others
            .iter()
            .filter(|it| it.pid != self.pid)
            .flat_map(|it| Processes::of(it.pid).pids().to_vec())
            .filter(|pid| *pid != self.pid)
            .collect();
        let is_mine = |pid: &u32| self.name != "shim" || !others.contains(pid);
        all.pids().iter().copied().filter(is_mine).collect()
    }
}

impl Held {
    /// What belongs to the same guest: its memory is the same pages in all of them.
    fn join(&mut self, other: Self) {
        let guest_kib = self.memory.guest_kib.max(other.memory.guest_kib);
        self.add(other);
        self.memory.guest_kib = guest_kib;
    }

    /// What belongs to another pod.
    pub(super) fn add(&mut self, other: Self) {
        self.memory.private_kib += other.memory.private_kib;
        self.memory.clean_kib += other.memory.clean_kib;
        self.memory.guest_kib += other.memory.guest_kib;
        self.descriptors += other.descriptors;
        self.threads += other.threads;
    }
}

/// What all parts of a pod hold together.
pub(super) fn together(parts: &[Part]) -> Result<Held, Error> {
    let mut held = Held::default();
    for part in parts {
        held.join(part.held(parts)?);
    }
    Ok(held)
}

/// What one process holds.
pub(super) fn one(pid: u32) -> std::io::Result<Held> {
    let count = |folder: &str| {
        let entries = fs::read_dir(format!("/proc/{pid}/{folder}"))?;
        Ok::<_, std::io::Error>(u32::try_from(entries.count()).unwrap_or(u32::MAX))
    };
    Ok(Held {
        memory: Memory::of(pid, GUEST_KIB)?,
        descriptors: count("fd")?,
        threads: count("task")?,
    })
}
