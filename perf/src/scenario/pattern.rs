//! Which part of a file or disk comes next.

use serde::{Deserialize, Serialize};

/// Direction and order of the offsets.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Reads anywhere.
    RandomRead,
    /// Writes anywhere.
    RandomWrite,
    /// Reads from the start on.
    SequentialRead,
    /// Writes from the start on.
    SequentialWrite,
}

impl Pattern {
    /// fio's name of it (`rw=`).
    #[must_use]
    pub fn fio_name(self) -> &'static str {
        match self {
            Self::RandomRead => "randread",
            Self::RandomWrite => "randwrite",
            Self::SequentialRead => "read",
            Self::SequentialWrite => "write",
        }
    }

    /// Whether it writes.
    #[must_use]
    pub fn is_write(self) -> bool {
        matches!(self, Self::RandomWrite | Self::SequentialWrite)
    }

    /// Whether offsets go up by the block size.
    #[must_use]
    pub fn is_sequential(self) -> bool {
        matches!(self, Self::SequentialRead | Self::SequentialWrite)
    }
}
