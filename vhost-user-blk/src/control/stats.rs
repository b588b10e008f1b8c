//! How a disk is doing.

use std::iter::Sum;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::limits::Rates;
use crate::worker::OperationCounts;

/// A disk as it is served now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStats {
    /// Its name.
    pub disk: String,
    /// Its image, as it was named.
    pub source: String,
    /// Its socket, if it is not inherited.
    pub socket: Option<PathBuf>,
    /// What the device itself knows.
    #[serde(flatten)]
    pub state: DiskState,
    /// Bytes that guests have read since the disk was added.
    pub bytes_read: u64,
    /// Bytes that guests have written.
    pub bytes_written: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Requests taken and not yet answered.
    pub in_flight: u64,
}

/// The device's own part of [`DiskStats`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskState {
    /// Whether a front end is connected.
    pub connected: bool,
    /// Capacity in bytes.
    pub capacity: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Number of queues offered.
    pub queues: usize,
    /// Whether the guest's write cache is on.
    pub write_cache: bool,
    /// The rate limits.
    pub limits: Rates,
    /// Operations begun since the disk was added.
    pub operations: Operations,
}

/// Operations by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operations {
    /// Reads.
    pub read: u64,
    /// Writes.
    pub write: u64,
    /// Flushes.
    pub flush: u64,
    /// Discards.
    pub discard: u64,
    /// Ranges set to zero.
    pub write_zeroes: u64,
}

impl From<&OperationCounts> for Operations {
    fn from(counts: &OperationCounts) -> Self {
        Self {
            read: counts.read.get(),
            write: counts.write.get(),
            flush: counts.flush.get(),
            discard: counts.discard.get(),
            write_zeroes: counts.write_zeroes.get(),
        }
    }
}

impl Sum for Operations {
    fn sum<I: Iterator<Item = Self>>(queues: I) -> Self {
        queues.fold(Self::default(), |sum, queue| Self {
            read: sum.read + queue.read,
            write: sum.write + queue.write,
            flush: sum.flush + queue.flush,
            discard: sum.discard + queue.discard,
            write_zeroes: sum.write_zeroes + queue.write_zeroes,
        })
    }
}
