//! What a guest can do to a ring.

use thiserror::Error;

/// A fault of the guest that makes the whole queue unusable until it is set up again.
#[derive(Debug, Error)]
pub enum QueueError {
    /// The available index moved further than the queue has entries (virtio 1.2, 2.7.13.3.1).
    #[error("available index {available} runs ahead of {taken} by more than the queue's size")]
    AvailableOverrun {
        /// The guest's index.
        available: u16,
        /// Requests taken so far.
        taken: u16,
    },
    /// An available entry names a descriptor beyond the table.
    #[error("available entry names descriptor {head}, the queue has {size}")]
    HeadOutOfRange {
        /// The entry's descriptor index.
        head: u16,
        /// Queue size.
        size: u16,
    },
    /// A chain was made available a second time while the device still owns it.
    #[error("descriptor {0} was made available while still in flight")]
    HeadInFlight(u16),
    /// The front end cut the file of its guest's memory short.
    #[error("the front end took memory of its guest away (its file was cut short)")]
    MemoryLost,
    /// The rings do not lie in guest memory, or a size or alignment is wrong.
    #[error("rings are not inside guest memory, or their size or alignment is wrong")]
    BadRings,
}
