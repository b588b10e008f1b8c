//! The driver's side of a split virtqueue: chains in, completions out.

use std::collections::HashMap;
use std::sync::atomic::{Ordering, fence};

use super::ring::{Descriptor, Ring, RingAddresses, descriptor_flags};
use super::{Error, GuestAddress, GuestMemory, Result, features};
use crate::Event;

/// A buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it is.
    pub addr: GuestAddress,
    /// Its length in bytes.
    pub len: u32,
    /// The device writes it; otherwise it reads it.
    pub writable: bool,
}

impl Segment {
    /// A buffer that the device reads.
    #[must_use]
    pub fn readable(addr: GuestAddress, len: u32) -> Self {
        Self {
            addr,
            len,
            writable: false,
        }
    }

    /// A buffer that the device writes.
    #[must_use]
    pub fn writable(addr: GuestAddress, len: u32) -> Self {
        Self {
            addr,
            len,
            writable: true,
        }
    }

    pub(super) fn descriptor(self, next: Option<u16>) -> Descriptor {
        let write = if self.writable {
            descriptor_flags::WRITE
        } else {
            0
        };
        let more = if next.is_some() {
            descriptor_flags::NEXT
        } else {
            0
        };
        let (addr, len, flags) = (self.addr.0, self.len, write | more);
        Descriptor {
            addr,
            len,
            flags,
            next: next.unwrap_or(0),
        }
    }
}

/// What a chain occupies while it is in flight.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) descriptors: Vec<u16>,
    pub(super) table: Option<(GuestAddress, usize)>,
}

/// A split virtqueue as its driver sees it. Not bound to a connection: it can outlive one and
/// be attached to the next.
#[derive(Debug)]
pub struct DriverQueue {
    pub(super) index: usize,
    pub(super) ring: Ring,
    pub(super) kick: Event,
    pub(super) call: Event,
    pub(super) event_idx: bool,
    pub(super) free: Vec<u16>,
    pub(super) chains: HashMap<u16, Chain>,
    /// Next position in the available ring, published or not.
    pub(super) staged: u16,
    published: u16,
    pub(super) used_next: u16,
    pub(super) interrupts: u64,
    /// The test wrote to the ring itself: completions may be of heads that we do not know.
    pub(super) tampered: bool,
}

impl DriverQueue {
    /// Lays a ring of `size` entries out in `memory`. `negotiated` are the virtio features.
    ///
    /// # Errors
    /// When the memory has no room or no eventfd can be had.
    pub fn new(memory: &GuestMemory, index: usize, size: u16, negotiated: u64) -> Result<Self> {
        Ok(Self {
            index,
            ring: Ring::new(memory, size)?,
            kick: Event::new().map_err(Error::os("cannot make a kick eventfd"))?,
            call: Event::new().map_err(Error::os("cannot make a call eventfd"))?,
            event_idx: negotiated & features::EVENT_IDX != 0,
            free: (0..size).rev().collect(),
            chains: HashMap::new(),
            staged: 0,
            published: 0,
            used_next: 0,
            interrupts: 0,
            tampered: false,
        })
    }

    /// The same ring with the same events, to hand to a daemon while someone else drives it.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn handle(&self) -> Result<Self> {
        let shared = |event: &Event| event.share().map_err(Error::os("cannot share an eventfd"));
        Ok(Self {
            index: self.index,
            ring: self.ring.clone(),
            kick: shared(&self.kick)?,
            call: shared(&self.call)?,
            event_idx: self.event_idx,
            free: Vec::new(),
            chains: HashMap::new(),
            staged: 0,
            published: 0,
            used_next: 0,
            interrupts: 0,
            tampered: false,
        })
    }

    /// Wakes whoever drives the ring: a daemon that died may have owed it a call.
    ///
    /// # Errors
    /// When the eventfd cannot be written.
    pub fn call_driver(&self) -> Result<()> {
        let called = self.call.signal();
        called.map_err(Error::os("cannot signal the call eventfd"))
    }

    /// Makes a chain of buffers available, without publishing it yet. Returns its head.
    ///
    /// # Errors
    /// When the chain is empty or more descriptors are needed than are free.
    pub fn add_chain(&mut self, segments: &[Segment], indirect: bool) -> Result<u16> {
        let needed = if indirect { 1 } else { segments.len() };
        if segments.is_empty() {
            let limit = "a chain has at least one buffer";
            return Err(Error::BadSize {
                what: "chain",
                len: 0,
                limit,
            });
        }
        if self.free.len() < needed {
            return Err(Error::QueueFull {
                queue: self.index,
                free: self.free.len(),
                needed,
            });
        }
        let descriptors = self.free.split_off(self.free.len() - needed);
        let head = descriptors[0];
        let table = if indirect {
            Some(self.write_indirect(head, segments)?)
        } else {
            self.write_direct(&descriptors, segments)?;
            None
        };
        self.chains.insert(head, Chain { descriptors, table });
        self.stage(head)?;
        Ok(head)
    }

    pub(super) fn stage(&mut self, head: u16) -> Result<()> {
        self.ring.set_avail_entry(self.staged, head)?;
        self.staged = self.staged.wrapping_add(1);
        Ok(())
    }

    fn write_direct(&self, descriptors: &[u16], segments: &[Segment]) -> Result<()> {
        for (position, segment) in segments.iter().enumerate() {
            let next = descriptors.get(position + 1).copied();
            self.ring
                .set_descriptor(descriptors[position], segment.descriptor(next))?;
        }
        Ok(())
    }

    fn write_indirect(&self, head: u16, segments: &[Segment]) -> Result<(GuestAddress, usize)> {
        let limit = "an indirect table holds at most 65535 descriptors";
        let count = u16::try_from(segments.len()).map_err(|_| Error::BadSize {
            what: "chain",
            len: segments.len(),
            limit,
        })?;
        let bytes: Vec<u8> = (1..=count)
            .zip(segments)
            .flat_map(|(next, segment)| {
                segment
                    .descriptor((next < count).then_some(next))
                    .to_bytes()
            })
            .collect();
        let addr = self.ring.memory.alloc(bytes.len(), 16)?;
        self.ring.memory.write(addr, &bytes)?;
        let (len, flags) = (u32::from(count) * 16, descriptor_flags::INDIRECT);
        self.ring.set_descriptor(
            head,
            Descriptor {
                addr: addr.0,
                len,
                flags,
                next: 0,
            },
        )?;
        Ok((addr, bytes.len()))
    }

    /// Shows all chains added so far to the device.
    ///
    /// # Errors
    /// Never while the ring is in guest memory.
    pub fn publish(&mut self) -> Result<()> {
        self.ring.set_avail_idx(self.staged)
    }

    /// Publishes and kicks, unless the device asked not to be. Returns whether it kicked.
    ///
    /// # Errors
    /// When the eventfd cannot be written.
    pub fn kick(&mut self) -> Result<bool> {
        self.publish()?;
        let (old, new) = (self.published, self.staged);
        self.published = new;
        // The device must see the new index before we look whether it wants a kick.
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            // virtio 1.2, 2.7.10: the event index lies in what was just published.
            let event = self.ring.avail_event()?;
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            new != old && !self.ring.notify_suppressed()?
        };
        if wanted {
            self.kick_always()?;
        }
        Ok(wanted)
    }

    /// Kicks, whatever the device asked for. Publishes nothing.
    ///
    /// # Errors
    /// When the eventfd cannot be written.
    pub fn kick_always(&self) -> Result<()> {
        self.kick
            .signal()
            .map_err(Error::os("cannot signal the kick eventfd"))
    }

    /// Adds a chain, publishes it and kicks.
    ///
    /// # Errors
    /// As [`add_chain`](Self::add_chain) and [`kick`](Self::kick).
    pub fn submit(&mut self, segments: &[Segment], indirect: bool) -> Result<u16> {
        let head = self.add_chain(segments, indirect)?;
        self.kick()?;
        Ok(head)
    }

    /// Without EVENT_IDX: asks the device for no interrupts, or for interrupts again.
    ///
    /// # Errors
    /// Never while the ring is in guest memory.
    pub fn suppress_interrupts(&mut self, suppress: bool) -> Result<()> {
        self.ring.suppress_interrupts(suppress)
    }

    /// With EVENT_IDX: asks for an interrupt once the used index passes `idx`.
    ///
    /// # Errors
    /// Never while the ring is in guest memory.
    pub fn set_used_event(&mut self, idx: u16) -> Result<()> {
        self.ring.set_used_event(idx)
    }

    /// Chains that were added and not taken back from the used ring.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.chains.len()
    }

    /// Descriptors that are free.
    #[must_use]
    pub fn free_descriptors(&self) -> usize {
        self.free.len()
    }

    /// The device's used index: where a new connection goes on after the old one broke.
    ///
    /// # Errors
    /// Never while the ring is in guest memory.
    pub fn used_idx(&self) -> Result<u16> {
        self.ring.used_idx()
    }

    /// The queue's index in its device.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Entries of the ring.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.ring.size
    }

    /// Where the ring is in guest memory.
    #[must_use]
    pub fn addresses(&self) -> RingAddresses {
        self.ring.at
    }

    /// The memory that the ring and its buffers are in.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.ring.memory
    }
}
