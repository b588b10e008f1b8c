//! What is asked of a disk, and which disk.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::scenario::Pattern;

/// What a contestant serves.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A file on tmpfs: the daemon's own cost, with a memory copy
    Tmpfs,
    /// A file on a disk, past the page cache (O_DIRECT)
    Disk,
    /// No storage at all: the ring's cost alone
    Null,
}

/// How the driver learns of completions.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It sleeps until the device signals an eventfd
    Eventfd,
    /// It watches the used ring
    Polling,
    /// No ring: a program of the host on the file itself
    #[value(skip)]
    Host,
}

/// A load.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Workload {
    /// Direction and order.
    pub pattern: Pattern,
    /// Bytes of a request.
    pub block: u32,
    /// Requests in flight on each queue.
    pub depth: u16,
    /// Queues, each driven by a thread of its own.
    pub queues: u16,
}

impl Workload {
    /// All that a run measures.
    pub const ALL: [Self; 8] = [
        Self::new(Pattern::RandomRead, 4096, 1, 1),
        Self::new(Pattern::RandomWrite, 4096, 1, 1),
        Self::new(Pattern::RandomRead, 4096, 32, 1),
        Self::new(Pattern::RandomWrite, 4096, 32, 1),
        Self::new(Pattern::RandomRead, 4096, 16, 2),
        Self::new(Pattern::RandomWrite, 4096, 16, 2),
        Self::new(Pattern::SequentialRead, 131_072, 128, 1),
        Self::new(Pattern::SequentialWrite, 131_072, 128, 1),
    ];

    /// How rates go with depth and with queues: what `--scaling` measures.
    pub const SCALING: [Self; 10] = [
        Self::new(Pattern::RandomRead, 4096, 1, 1),
        Self::new(Pattern::RandomRead, 4096, 2, 1),
        Self::new(Pattern::RandomRead, 4096, 4, 1),
        Self::new(Pattern::RandomRead, 4096, 8, 1),
        Self::new(Pattern::RandomRead, 4096, 16, 1),
        Self::new(Pattern::RandomRead, 4096, 32, 1),
        Self::new(Pattern::RandomRead, 4096, 64, 1),
        Self::new(Pattern::RandomRead, 4096, 128, 1),
        Self::new(Pattern::RandomRead, 4096, 32, 2),
        Self::new(Pattern::RandomRead, 4096, 32, 4),
    ];

    const fn new(pattern: Pattern, block: u32, depth: u16, queues: u16) -> Self {
        Self {
            pattern,
            block,
            depth,
            queues,
        }
    }

    /// A name as in `4k-randread-d32` or `4k-randread-2q-d16`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-d{}", self.stem(), self.depth)
    }

    /// The name without the depth.
    #[must_use]
    pub fn stem(&self) -> String {
        let queues = match self.queues {
            1 => String::new(),
            queues => format!("-{queues}q"),
        };
        let (kib, pattern) = (self.block / 1024, self.pattern.fio_name());
        format!("{kib}k-{pattern}{queues}")
    }

    /// Whether this is one queue of random 4 KiB requests at that depth: what the aims speak of.
    #[must_use]
    pub fn is_random_4k(&self, depth: u16) -> bool {
        !self.pattern.is_sequential()
            && (self.block, self.queues) == (4096, 1)
            && self.depth == depth
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tmpfs => "tmpfs",
            Self::Disk => "disk",
            Self::Null => "null",
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Eventfd => "eventfd",
            Self::Polling => "polling",
            Self::Host => "host",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_told() {
        let names = |all: &[Workload]| all.iter().map(Workload::name).collect::<Vec<_>>();
        let all = names(&Workload::ALL);
        assert_eq!(all[2], "4k-randread-d32");
        assert_eq!(all[4], "4k-randread-2q-d16");
        assert_eq!(all[7], "128k-write-d128");
        for mut names in [all, names(&Workload::SCALING)] {
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }
}
