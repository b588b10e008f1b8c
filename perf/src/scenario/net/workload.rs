//! Which frames go which way, and through what.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What frames go through.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A tap in a network namespace of the run's own
    Tap,
    /// From one port of a daemon's own switch to another
    Switch,
    /// Between a tap and a Linux guest under QEMU, whose processor is emulated
    Qemu,
    /// Between a tap and User-Mode Linux
    Uml,
}

/// Which way frames go, seen from the guest.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the guest.
    Tx,
    /// To the guest.
    Rx,
    /// There and back: the kernel's answers to pings.
    Echo,
}

/// A load.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Workload {
    /// Which way.
    pub direction: Direction,
    /// Bytes of a frame, without the virtio header.
    pub bytes: usize,
    /// Echoes under way at a time; otherwise the queue is kept full.
    pub depth: u16,
}

impl Target {
    /// Whether a guest's own driver makes the frames.
    #[must_use]
    pub fn is_guest(self) -> bool {
        matches!(self, Self::Qemu | Self::Uml)
    }
}

/// Bytes of the frames that are cut into segments behind the device.
pub(super) const TSO: usize = 65_000;

impl Workload {
    /// All that a run measures.
    pub const ALL: [Self; 8] = [
        Self::new(Direction::Tx, 64, 256),
        Self::new(Direction::Rx, 64, 256),
        Self::new(Direction::Tx, 1500, 256),
        Self::new(Direction::Rx, 1500, 256),
        Self::new(Direction::Tx, TSO, 256),
        Self::new(Direction::Rx, TSO, 256),
        Self::new(Direction::Echo, 64, 1),
        Self::new(Direction::Echo, 1500, 32),
    ];

    const fn new(direction: Direction, bytes: usize, depth: u16) -> Self {
        Self {
            direction,
            bytes,
            depth,
        }
    }

    /// A name as in `64-tx`, `64k-rx` or `1500-echo-d32`.
    #[must_use]
    pub fn name(&self) -> String {
        let bytes = match self.bytes {
            TSO => "64k".to_owned(),
            bytes => bytes.to_string(),
        };
        match self.direction {
            Direction::Echo => format!("{bytes}-echo-d{}", self.depth),
            direction => format!("{bytes}-{direction}"),
        }
    }

    /// Whether frames have to be cut into segments.
    #[must_use]
    pub fn is_tso(&self) -> bool {
        self.bytes == TSO
    }

    /// Whether the load exists there: a switch has no kernel that answers, and what one port sends
    /// another receives. Guests have loads of their own.
    #[must_use]
    pub fn runs_on(&self, target: Target) -> bool {
        match target {
            Target::Tap => true,
            Target::Switch => self.direction == Direction::Tx,
            Target::Qemu | Target::Uml => false,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tap => "tap",
            Self::Switch => "switch",
            Self::Qemu => "qemu",
            Self::Uml => "uml",
        })
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tx => "tx",
            Self::Rx => "rx",
            Self::Echo => "echo",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_told() {
        let mut names: Vec<_> = Workload::ALL.iter().map(Workload::name).collect();
        assert_eq!(names[0], "64-tx");
        assert_eq!(names[5], "64k-rx");
        assert_eq!(names[7], "1500-echo-d32");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), Workload::ALL.len());
    }
}
