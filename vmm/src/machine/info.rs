//! How a machine is, for whoever watches it.

use serde::Serialize;

/// How a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Info {
    /// Of the program.
    pub version: &'static str,
    /// Its process.
    pub pid: u32,
    /// Running or paused.
    pub state: State,
    /// Processors.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Devices on the bus.
    pub devices: usize,
}

/// A machine's memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemoryInfo {
    /// What the guest was given.
    pub size: u64,
    /// What of it takes room on the host.
    pub resident: u64,
    /// Its balloon.
    pub balloon: Option<BalloonInfo>,
}

/// A balloon, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BalloonInfo {
    /// What is wanted in it.
    pub target: u64,
    /// What is in it.
    pub actual: u64,
    /// What the guest gave back since the start, by balloon or by report.
    pub returned: u64,
}

/// Whether the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It does.
    Running,
    /// It waits for [`Command::Resume`].
    Paused,
}
