//! Descriptor chains, validated.

use thiserror::Error;
use virtio_queue::DescriptorChain;

use super::{Buffers, OutOfGuestMemory};
use crate::memory::{Memory, PinnedMemory};

/// A validated descriptor chain: device-readable buffers, then device-writable ones, every byte
/// inside guest memory (virtio 1.2, 2.7.4).
#[derive(Debug)]
pub struct Chain {
    /// What the driver says to the device.
    pub readable: Buffers,
    /// Where the device answers.
    pub writable: Buffers,
}

/// What is wrong with a descriptor chain that a guest made available.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum ChainError {
    /// The chain loops, leaves its table, or names an indirect table that cannot be used.
    #[error("descriptor chain has no proper end (a loop, an index or a table out of bounds)")]
    Unterminated,
    /// virtio 1.2, 2.7.4.2: device-writable buffers come after all device-readable ones.
    #[error("device-readable descriptor after a device-writable one")]
    ReadableAfterWritable,
    /// A buffer of zero bytes.
    #[error("descriptor of zero bytes")]
    ZeroLength,
    /// A buffer outside the shared memory.
    #[error(transparent)]
    OutOfGuestMemory(#[from] OutOfGuestMemory),
}

impl Chain {
    /// Walks `descriptors` once, copying each descriptor before it is checked.
    pub(super) fn validate(
        descriptors: DescriptorChain<&Memory>,
        memory: &PinnedMemory,
    ) -> Result<Self, ChainError> {
        let mut chain = Self {
            readable: Buffers::new(memory.clone()),
            writable: Buffers::new(memory.clone()),
        };
        // virtio-queue ends its iteration silently when a chain is broken. It then ends before
        // any descriptor, or after one that promised a next: that is how a broken chain shows.
        let mut promised_next = true;
        for descriptor in descriptors {
            promised_next = descriptor.has_next();
            if descriptor.len() == 0 {
                return Err(ChainError::ZeroLength);
            }
            let len = descriptor.len() as usize;
            if descriptor.is_write_only() {
                chain.writable.append(descriptor.addr(), len)?;
            } else if chain.writable.is_empty() {
                chain.readable.append(descriptor.addr(), len)?;
            } else {
                return Err(ChainError::ReadableAfterWritable);
            }
        }
        if promised_next {
            Err(ChainError::Unterminated)
        } else {
            Ok(chain)
        }
    }
}
