//! What no honest driver does: the ring's memory written at will.
//!
//! After any of these the queue accepts completions of heads that it does not know.

use super::ring::{Descriptor, descriptor_flags};
use super::{DriverQueue, Error, GuestAddress, Result};

impl DriverQueue {
    /// Writes an entry of the descriptor table.
    ///
    /// # Errors
    /// When `index` lies so far outside the table that it is outside guest memory.
    pub fn write_descriptor(&mut self, index: u16, descriptor: Descriptor) -> Result<()> {
        self.tampered = true;
        self.ring.set_descriptor(index, descriptor)
    }

    /// Writes an entry of the available ring, at `position` modulo the ring's size.
    ///
    /// # Errors
    /// Never while the ring is in guest memory.
    pub fn write_avail_entry(&mut self, position: u16, head: u16) -> Result<()> {
        self.tampered = true;
        self.ring.set_avail_entry(position, head)
    }

    /// Sets the available index, as by an overflow when it is ahead by more than the size.
    ///
    /// # Errors
    /// Never while the ring is in guest memory.
    pub fn write_avail_idx(&mut self, idx: u16) -> Result<()> {
        self.tampered = true;
        self.staged = idx;
        self.ring.set_avail_idx(idx)
    }

    /// The next position in the available ring.
    #[must_use]
    pub fn avail_idx(&self) -> u16 {
        self.staged
    }

    /// Makes `head` available as it is, twice if asked twice, and shows it to the device.
    ///
    /// # Errors
    /// When the eventfd cannot be written.
    pub fn submit_head(&mut self, head: u16) -> Result<()> {
        self.tampered = true;
        self.stage(head)?;
        self.publish()?;
        self.kick_always()
    }

    /// Writes `chain` to the descriptors from `first` on, as it is, and submits `first`.
    ///
    /// # Errors
    /// When the descriptors leave guest memory or the eventfd cannot be written.
    pub fn submit_raw(&mut self, first: u16, chain: &[Descriptor]) -> Result<()> {
        for (index, descriptor) in (first..).zip(chain) {
            self.write_descriptor(index, *descriptor)?;
        }
        self.submit_head(first)
    }

    /// A chain of `len` descriptors over `buffer` whose last one points back at the first.
    ///
    /// # Errors
    /// As [`submit_raw`](Self::submit_raw).
    pub fn submit_loop(&mut self, buffer: GuestAddress, len: u16) -> Result<()> {
        let chain: Vec<Descriptor> = (1..=len)
            .map(|next| Descriptor {
                addr: buffer.0,
                len: 16,
                flags: descriptor_flags::NEXT,
                next: next % len,
            })
            .collect();
        self.submit_raw(0, &chain)
    }

    /// A descriptor whose `next` lies outside the table.
    ///
    /// # Errors
    /// As [`submit_raw`](Self::submit_raw).
    pub fn submit_next_out_of_range(&mut self, buffer: GuestAddress) -> Result<()> {
        let (next, flags) = (self.size(), descriptor_flags::NEXT);
        self.submit_raw(
            0,
            &[Descriptor {
                addr: buffer.0,
                len: 16,
                flags,
                next,
            }],
        )
    }

    /// An indirect descriptor over `table`, with a table length of `len` bytes of any value.
    ///
    /// # Errors
    /// When the table does not fit guest memory or the eventfd cannot be written.
    pub fn submit_indirect_raw(&mut self, table: &[Descriptor], len: u32) -> Result<()> {
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_bytes()).collect();
        let addr = self.memory().alloc_with(&bytes)?.0;
        let flags = descriptor_flags::INDIRECT;
        self.submit_raw(
            0,
            &[Descriptor {
                addr,
                len,
                flags,
                next: 0,
            }],
        )
    }

    /// An indirect table whose only entry is an indirect table again.
    ///
    /// # Errors
    /// As [`submit_indirect_raw`](Self::submit_indirect_raw).
    pub fn submit_nested_indirect(&mut self, buffer: GuestAddress) -> Result<()> {
        let inner = Descriptor {
            addr: buffer.0,
            len: 16,
            ..Descriptor::default()
        };
        let addr = self.memory().alloc_with(&inner.to_bytes())?.0;
        let flags = descriptor_flags::INDIRECT;
        self.submit_indirect_raw(
            &[Descriptor {
                addr,
                len: 16,
                flags,
                next: 0,
            }],
            16,
        )
    }

    /// An indirect table with a length that is no multiple of a descriptor's.
    ///
    /// # Errors
    /// As [`submit_indirect_raw`](Self::submit_indirect_raw).
    pub fn submit_indirect_bad_len(&mut self, buffer: GuestAddress) -> Result<()> {
        let inner = Descriptor {
            addr: buffer.0,
            len: 16,
            ..Descriptor::default()
        };
        self.submit_indirect_raw(&[inner], 17)
    }

    /// Moves the available index ahead of the ring's size, and kicks.
    ///
    /// # Errors
    /// When the eventfd cannot be written.
    pub fn overflow_avail(&mut self) -> Result<()> {
        let idx = self.avail_idx().wrapping_add(self.size()).wrapping_add(1);
        self.write_avail_idx(idx)?;
        self.kick_always()
    }

    /// Forgets every chain in flight and starts at index zero, with a ring of zeros: what a
    /// driver does that resets its device after the device stopped the queue.
    ///
    /// # Errors
    /// When guest memory has no room for a new ring.
    pub fn renew(&mut self, negotiated: u64) -> Result<()> {
        let memory = self.memory().clone();
        *self = Self::new(&memory, self.index, self.size(), negotiated)?;
        Ok(())
    }

    /// Whether the device interrupts or uses anything within `timeout`: the errors of a hostile
    /// ring are never the test's.
    ///
    /// # Errors
    /// Only [`Error::Os`].
    pub fn any_used(&mut self, timeout: std::time::Duration) -> Result<bool> {
        match self.wait_used(timeout) {
            Err(error @ Error::Os { .. }) => Err(error),
            Ok(used) => Ok(!used.is_empty()),
            Err(_) => Ok(true),
        }
    }
}
