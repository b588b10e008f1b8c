//! A split virtqueue in guest memory, field by field (virtio 1.2, 2.7).

use super::{Error, GuestAddress, GuestMemory, Result};

/// The flags of a descriptor (virtio 1.2, 2.7.5).
pub mod descriptor_flags {
    /// The chain goes on at `next`.
    pub const NEXT: u16 = 1;
    /// The device writes the buffer; otherwise it reads it.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;
}

/// Size of a descriptor in bytes.
pub(crate) const DESCRIPTOR_LEN: u64 = 16;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT` and `VIRTQ_USED_F_NO_NOTIFY` (virtio 1.2, 2.7.6 and 2.7.8).
const SUPPRESS: u16 = 1;

/// One entry of a descriptor table, with any values at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest physical address of the buffer.
    pub addr: u64,
    /// Length of the buffer in bytes.
    pub len: u32,
    /// See [`descriptor_flags`].
    pub flags: u16,
    /// Index of the next descriptor.
    pub next: u16,
}

impl Descriptor {
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// Where the three parts of a ring are, as guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddresses {
    /// The descriptor table.
    pub desc: GuestAddress,
    /// The available ring, which the driver writes.
    pub avail: GuestAddress,
    /// The used ring, which the device writes.
    pub used: GuestAddress,
}

/// The ring's memory. Knows no chain and no state.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    pub(crate) memory: GuestMemory,
    pub(crate) size: u16,
    pub(crate) at: RingAddresses,
}

impl Ring {
    pub(crate) fn new(memory: &GuestMemory, size: u16) -> Result<Self> {
        if size == 0 {
            let limit = "a ring has at least one entry";
            return Err(Error::BadSize {
                what: "queue",
                len: 0,
                limit,
            });
        }
        let entries = usize::from(size);
        let (avail_len, used_len) = (6 + 2 * entries, 6 + 8 * entries);
        let at = RingAddresses {
            desc: memory.alloc(16 * entries, 4096)?,
            avail: memory.alloc(avail_len, 4096)?,
            used: memory.alloc(used_len, 4096)?,
        };
        memory.fill(at.desc, 0, 16 * entries)?;
        memory.fill(at.avail, 0, avail_len)?;
        memory.fill(at.used, 0, used_len)?;
        Ok(Self {
            memory: memory.clone(),
            size,
            at,
        })
    }

    fn slot(&self, position: u16) -> u64 {
        u64::from(position % self.size)
    }

    fn field(base: GuestAddress, offset: u64) -> GuestAddress {
        GuestAddress(base.0 + offset)
    }

    pub(crate) fn set_descriptor(&self, index: u16, descriptor: Descriptor) -> Result<()> {
        let address = Self::field(self.at.desc, u64::from(index) * DESCRIPTOR_LEN);
        self.memory.write(address, &descriptor.to_bytes())
    }

    pub(crate) fn set_avail_entry(&self, position: u16, head: u16) -> Result<()> {
        let address = Self::field(self.at.avail, 4 + 2 * self.slot(position));
        self.memory.store(address, head.to_le())
    }

    pub(crate) fn set_avail_idx(&self, idx: u16) -> Result<()> {
        self.memory
            .store(Self::field(self.at.avail, 2), idx.to_le())
    }

    pub(crate) fn suppress_interrupts(&self, suppress: bool) -> Result<()> {
        let flags = if suppress { SUPPRESS } else { 0 };
        self.memory.store(self.at.avail, flags.to_le())
    }

    pub(crate) fn set_used_event(&self, idx: u16) -> Result<()> {
        let address = Self::field(self.at.avail, 4 + 2 * u64::from(self.size));
        self.memory.store(address, idx.to_le())
    }

    pub(crate) fn notify_suppressed(&self) -> Result<bool> {
        Ok(u16::from_le(self.memory.load(self.at.used)?) & SUPPRESS != 0)
    }

    pub(crate) fn used_idx(&self) -> Result<u16> {
        Ok(u16::from_le(
            self.memory.load(Self::field(self.at.used, 2))?,
        ))
    }

    pub(crate) fn used_entry(&self, position: u16) -> Result<(u32, u32)> {
        let address = Self::field(self.at.used, 4 + 8 * self.slot(position));
        let id: u32 = self.memory.load(address)?;
        let len: u32 = self.memory.load(Self::field(address, 4))?;
        Ok((u32::from_le(id), u32::from_le(len)))
    }

    pub(crate) fn avail_event(&self) -> Result<u16> {
        let address = Self::field(self.at.used, 4 + 8 * u64::from(self.size));
        Ok(u16::from_le(self.memory.load(address)?))
    }
}
