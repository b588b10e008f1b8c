//! Facts about the host that a reader of the numbers needs.

use std::fs;
use std::thread;

use serde::{Deserialize, Serialize};

/// The machine a report was made on.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct HostFacts {
    /// Model of the first CPU.
    pub cpu: String,
    /// CPUs this process may run on.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Whether the CPU says that a hypervisor is below.
    pub virtualised: bool,
    /// Load averages over 1, 5 and 15 minutes when the run began.
    pub load_before: String,
    /// The same when it ended.
    pub load_after: Option<String>,
}

impl HostFacts {
    /// Reads them.
    #[must_use]
    pub fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let flags = field(&cpuinfo, "flags").unwrap_or_default();
        let memory_kib = field(&meminfo, "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
            .unwrap_or(0);
        Self {
            cpu: field(&cpuinfo, "model name")
                .unwrap_or("unknown")
                .to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            memory_mib: memory_kib / 1024,
            virtualised: flags.split(' ').any(|flag| flag == "hypervisor"),
            load_before: load_average(),
            load_after: None,
        }
    }

    /// The facts in two lines.
    #[must_use]
    pub fn lines(&self) -> String {
        let level = if self.virtualised {
            "virtual machine"
        } else {
            "bare metal"
        };
        let after = self.load_after.as_deref().unwrap_or("?");
        format!(
            "host: {}, {} cores, {} MiB, kernel {}, {level}\nload average: {} before, {after} after",
            self.cpu, self.cores, self.memory_mib, self.kernel, self.load_before
        )
    }
}

/// The three load averages (proc(5), `/proc/loadavg`).
#[must_use]
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu hypervisor\n";
        assert_eq!(field(text, "model name"), Some("A CPU"));
        assert_eq!(field(text, "absent"), None);
    }

    #[test]
    fn this_host_has_facts() {
        let facts = HostFacts::read();
        assert!(facts.cores > 0 && facts.memory_mib > 0);
        assert_eq!(facts.load_before.split(' ').count(), 3);
    }
}
