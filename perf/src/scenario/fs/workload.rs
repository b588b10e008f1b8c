//! What is asked of a file system, and which file system.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::peer::fio::Engine;
use crate::scenario::Pattern;

/// What the shared directory is on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// tmpfs: the daemon's own cost, with a memory copy
    Tmpfs,
    /// A file system on a disk, through the host's page cache
    Disk,
}

/// What the kernel may cache.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// Data and names, for a second (`--cache auto`)
    Auto,
    /// Nothing (`--cache never`)
    Never,
    /// No daemon: the directory itself
    #[value(skip)]
    Host,
}

/// A step of metadata work on many small files of 4 KiB.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Create, write, close.
    Create,
    /// lstat(2).
    Stat,
    /// Open, read, close.
    OpenRead,
    /// unlink(2).
    Unlink,
}

/// What is done.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Load {
    /// fio, each job on a file of its own.
    Fio {
        /// Direction and order.
        pattern: Pattern,
        /// Bytes of an operation.
        block: u32,
        /// Operations in flight in each job: 1 with psync, more with libaio.
        depth: u16,
        /// Jobs.
        jobs: u16,
        /// `O_DIRECT`: past the page cache of the mount.
        direct: bool,
    },
    /// `dd bs=4k count=16k` with `iflag=direct` or `oflag=direct`.
    Dd {
        /// Direction.
        write: bool,
    },
    /// Many small files, one after the other.
    Files {
        /// What is done to each.
        step: Step,
    },
    /// Files of that size: opened, read to the end, closed, one after the other.
    Whole {
        /// The size.
        kib: u32,
    },
    /// `find` over a tree, each file's size looked at.
    Find,
    /// `git status` in a tree of files that git knows.
    GitStatus,
}

/// A load with its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Workload {
    /// What is done.
    pub load: Load,
}

const KIB_4: u32 = 4 << 10;
const MIB: u32 = 1 << 20;

impl Workload {
    /// All that a run measures.
    pub const ALL: [Self; 22] = {
        use Pattern::{RandomRead, RandomWrite, SequentialRead, SequentialWrite};
        [
            Self::fio(RandomRead, KIB_4, (32, 4), true),
            Self::fio(RandomWrite, KIB_4, (32, 4), true),
            Self::fio(RandomRead, KIB_4, (16, 2), true),
            Self::fio(RandomWrite, KIB_4, (16, 2), true),
            Self::fio(RandomRead, KIB_4, (1, 1), true),
            Self::fio(RandomWrite, KIB_4, (1, 1), true),
            Self::fio(RandomRead, KIB_4, (32, 4), false),
            Self::fio(RandomWrite, KIB_4, (32, 4), false),
            Self::fio(RandomRead, KIB_4, (1, 1), false),
            Self::fio(RandomWrite, KIB_4, (1, 1), false),
            Self::fio(SequentialRead, MIB, (1, 1), true),
            Self::fio(SequentialWrite, MIB, (1, 1), true),
            Self::fio(SequentialRead, MIB, (1, 1), false),
            Self::fio(SequentialWrite, MIB, (1, 1), false),
            Self::of(Load::Dd { write: false }),
            Self::of(Load::Dd { write: true }),
            Self::files(Step::Create),
            Self::files(Step::Stat),
            Self::files(Step::OpenRead),
            Self::files(Step::Unlink),
            Self::of(Load::Find),
            Self::of(Load::GitStatus),
        ]
    };

    /// How rates go with the size of files: what `--scaling` measures.
    pub const SCALING: [Self; 6] = [
        Self::of(Load::Whole { kib: 4 }),
        Self::of(Load::Whole { kib: 16 }),
        Self::of(Load::Whole { kib: 64 }),
        Self::of(Load::Whole { kib: 256 }),
        Self::of(Load::Whole { kib: 1024 }),
        Self::of(Load::Whole { kib: 4096 }),
    ];

    const fn of(load: Load) -> Self {
        Self { load }
    }

    const fn files(step: Step) -> Self {
        Self::of(Load::Files { step })
    }

    const fn fio(pattern: Pattern, block: u32, (depth, jobs): (u16, u16), direct: bool) -> Self {
        Self::of(Load::Fio {
            pattern,
            block,
            depth,
            jobs,
            direct,
        })
    }

    /// A name as in `4k-randread-4j-d32`, `1m-write-d1-buffered`, `open-read`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.load {
            Load::Fio {
                pattern,
                block,
                depth,
                jobs,
                direct,
            } => {
                let size = match block {
                    MIB => "1m".to_owned(),
                    block => format!("{}k", block / 1024),
                };
                let jobs = match jobs {
                    1 => String::new(),
                    jobs => format!("{jobs}j-"),
                };
                let buffered = if direct { "" } else { "-buffered" };
                format!("{size}-{}-{jobs}d{depth}{buffered}", pattern.fio_name())
            }
            Load::Dd { write: false } => "dd-4k-read".to_owned(),
            Load::Dd { write: true } => "dd-4k-write".to_owned(),
            Load::Files { step } => step.name().to_owned(),
            Load::Whole { kib } => format!("whole-{kib}k"),
            Load::Find => "find".to_owned(),
            Load::GitStatus => "git-status".to_owned(),
        }
    }

    /// Bytes of an operation, where it moves data.
    #[must_use]
    pub fn block(&self) -> Option<u32> {
        match self.load {
            Load::Fio { block, .. } => Some(block),
            Load::Dd { .. } => Some(KIB_4),
            Load::Whole { kib } => Some(kib * 1024),
            _ => None,
        }
    }

    /// Processes or threads that ask at the same time.
    #[must_use]
    pub fn jobs(&self) -> u16 {
        match self.load {
            Load::Fio { jobs, .. } => jobs,
            _ => 1,
        }
    }

    /// Whether the aims for speed speak of it: random 4 KiB at depth 32, past the mount's cache.
    #[must_use]
    pub fn is_deep_random(&self) -> bool {
        matches!(
            self.load,
            Load::Fio {
                depth: 32,
                direct: true,
                ..
            }
        )
    }

    /// Whether it is work on names and attributes.
    #[must_use]
    pub fn is_metadata(&self) -> bool {
        matches!(self.load, Load::Files { .. } | Load::Find | Load::GitStatus)
    }
}

/// fio's engine for a depth.
pub(super) fn engine(depth: u16) -> Engine {
    match depth {
        1 => Engine::Psync,
        _ => Engine::Libaio,
    }
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Stat => "stat",
            Self::OpenRead => "open-read",
            Self::Unlink => "unlink",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tmpfs => "tmpfs",
            Self::Disk => "disk",
        })
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Never => "never",
            Self::Host => "host",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_told() {
        let all = Workload::ALL.iter().chain(&Workload::SCALING);
        let mut names: Vec<_> = all.map(Workload::name).collect();
        assert_eq!(names[0], "4k-randread-4j-d32");
        assert_eq!(names[9], "4k-randwrite-d1-buffered");
        assert_eq!(names[10], "1m-read-d1");
        assert_eq!(names[18], "open-read");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), Workload::ALL.len() + Workload::SCALING.len());
    }
}
