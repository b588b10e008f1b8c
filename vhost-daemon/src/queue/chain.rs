//! Descriptor chains, validated.

use thiserror::Error;
use vm_memory::{Bytes, GuestAddress};

use super::{Buffers, OutOfGuestMemory};
use crate::memory::PinnedMemory;
use crate::sys::{DESCRIPTOR_BYTES, Descriptor, SplitRing};

/// A validated descriptor chain: device-readable buffers, then device-writable ones, every byte
/// inside guest memory (virtio 1.2, 2.7.4).
#[derive(Debug)]
pub struct Chain {
    /// What the driver says to the device.
    pub readable: Buffers,
    /// Where the device answers.
    pub writable: Buffers,
}

/// Ranges of guest memory: address and length in bytes.
pub(super) type Ranges = Vec<(GuestAddress, usize)>;

/// What is wrong with a descriptor chain that a guest made available.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum ChainError {
    /// More descriptors than the table has: the chain loops.
    #[error("descriptor chain without an end")]
    Endless,
    /// `next` points beyond its table.
    #[error("descriptor {0} is beyond its table")]
    BeyondTable(u16),
    /// An indirect table of no entries, of a length that is no multiple of 16, of more than 1024
    /// entries and than the queue, inside another one, or with a successor (virtio 1.2, 2.7.5.3).
    #[error("indirect descriptor table that is not allowed")]
    BadIndirectTable,
    /// virtio 1.2, 2.7.4.2: device-writable buffers come after all device-readable ones.
    #[error("device-readable descriptor after a device-writable one")]
    ReadableAfterWritable,
    /// A buffer of zero bytes.
    #[error("descriptor of zero bytes")]
    ZeroLength,
    /// More than 4 GiB in one chain (virtio 1.2, 2.7.5.2).
    #[error("descriptor chain of more than 4 GiB")]
    TooLong,
    /// A buffer or table outside the shared memory.
    #[error(transparent)]
    OutOfGuestMemory(#[from] OutOfGuestMemory),
}

/// Longest indirect table of a queue that is not longer. A chain may have as many descriptors as the queue
/// (virtio 1.2, 2.7.5.3.1), but drivers have longer ones on short queues, and QEMU takes as many as this. Each
/// is memory of ours for as long as the request is in flight, so that no guest may have more.
const MAX_TABLE: u16 = 1024;

/// `VIRTQ_DESC_F_NEXT`, `VIRTQ_DESC_F_WRITE` and `VIRTQ_DESC_F_INDIRECT` (virtio 1.2, 2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

impl Chain {
    /// Walks the chain that starts at `head`, copying each descriptor once before it is checked.
    ///
    /// Adds the device-writable ranges to `written`, if it is given: the dirty log needs their guest
    /// addresses.
    pub(super) fn walk(
        ring: &SplitRing,
        head: u16,
        memory: &PinnedMemory,
        mut written: Option<&mut Ranges>,
    ) -> Result<Self, ChainError> {
        let mut chain = Self {
            readable: Buffers::new(memory.clone()),
            writable: Buffers::new(memory.clone()),
        };
        let mut index = head;
        for _ in 0..ring.size() {
            let descriptor = ring
                .descriptor(index)
                .ok_or(ChainError::BeyondTable(index))?;
            if descriptor.flags & INDIRECT != 0 {
                if descriptor.flags & NEXT != 0 {
                    return Err(ChainError::BadIndirectTable);
                }
                let most = ring.size().max(MAX_TABLE);
                chain.walk_indirect(&descriptor, u32::from(most), memory, written)?;
                return Ok(chain);
            }
            chain.append(&descriptor, written.as_deref_mut())?;
            if descriptor.flags & NEXT == 0 {
                return Ok(chain);
            }
            index = descriptor.next;
        }
        Err(ChainError::Endless)
    }

    fn walk_indirect(
        &mut self,
        at: &Descriptor,
        most: u32,
        memory: &PinnedMemory,
        mut written: Option<&mut Ranges>,
    ) -> Result<(), ChainError> {
        let bytes = u32::try_from(DESCRIPTOR_BYTES).unwrap_or(16);
        let count = at.len / bytes;
        if !at.len.is_multiple_of(bytes) || count == 0 || count > most {
            return Err(ChainError::BadIndirectTable);
        }
        let mut index = 0_u16;
        for _ in 0..count {
            if u32::from(index) >= count {
                return Err(ChainError::BeyondTable(index));
            }
            let entry = u64::from(index) * u64::from(bytes);
            let outside = OutOfGuestMemory {
                addr: at.addr,
                len: at.len as usize,
            };
            let entry = at.addr.checked_add(entry).ok_or(outside)?;
            let mut copy = [0; DESCRIPTOR_BYTES];
            memory
                .read_slice(&mut copy, GuestAddress(entry))
                .map_err(|_| outside)?;
            let descriptor = Descriptor::decode(&copy);
            if descriptor.flags & INDIRECT != 0 {
                return Err(ChainError::BadIndirectTable);
            }
            self.append(&descriptor, written.as_deref_mut())?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next;
        }
        Err(ChainError::Endless)
    }

    fn append(
        &mut self,
        descriptor: &Descriptor,
        written: Option<&mut Ranges>,
    ) -> Result<(), ChainError> {
        let (addr, len) = (GuestAddress(descriptor.addr), descriptor.len as usize);
        if len == 0 {
            return Err(ChainError::ZeroLength);
        }
        if self.readable.len() + self.writable.len() + len > u32::MAX as usize {
            return Err(ChainError::TooLong);
        }
        if descriptor.flags & WRITE != 0 {
            self.writable.append(addr, len)?;
            if let Some(written) = written {
                written.push((addr, len));
            }
        } else if self.writable.is_empty() {
            self.readable.append(addr, len)?;
        } else {
            return Err(ChainError::ReadableAfterWritable);
        }
        Ok(())
    }
}
