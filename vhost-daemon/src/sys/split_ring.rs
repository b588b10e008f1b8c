//! A split virtqueue's three parts, resolved to host addresses once (virtio 1.2, 2.7).

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

use virtio_queue::QueueState;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::memory::PinnedMemory;

/// Bytes of one entry of the descriptor table, `struct virtq_desc`.
pub const DESCRIPTOR_BYTES: usize = 16;

/// One descriptor, copied out of guest memory (virtio 1.2, 2.7.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest physical address of the buffer.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
    /// `VIRTQ_DESC_F_*`
    pub flags: u16,
    /// Index of the next descriptor, if the flags say that there is one.
    pub next: u16,
}

impl Descriptor {
    /// Decodes `struct virtq_desc`: le64 addr, le32 len, le16 flags, le16 next.
    pub fn decode(bytes: &[u8; DESCRIPTOR_BYTES]) -> Self {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let addr = u64::from(word(0)) | u64::from(word(4)) << 32;
        Self {
            addr,
            len: word(8),
            flags: half(12),
            next: half(14),
        }
    }
}

/// The rings of one queue. The guest may write to them at any time: each method reads or writes
/// once, and what it reads is to be checked by the caller.
#[derive(Debug)]
pub struct SplitRing {
    // Invariant: each part lies, aligned and whole, inside one region of `_memory`, which stays
    // mapped for as long as this value lives.
    descriptors: *const u8,
    available: *const AtomicU16,
    used: *const AtomicU16,
    size: u16,
    _memory: PinnedMemory,
}

/// Offset of the ring's entries behind `flags` and `idx`, in units of two bytes.
const RING: usize = 2;

impl SplitRing {
    /// Resolves the rings that `state` names; `None` if a part is not inside one region of guest
    /// memory or not aligned as virtio 1.2, 2.7 demands, or if the size is no power of two.
    pub fn resolve(state: &QueueState, memory: &PinnedMemory) -> Option<Self> {
        let size = usize::from(state.size);
        if !size.is_power_of_two() || state.size > 32768 {
            return None;
        }
        let part = |at: u64, len: usize, align: usize| -> Option<*const u8> {
            let slice = memory.get_slice(GuestAddress(at), len).ok()?;
            let start = slice.ptr_guard_mut().as_ptr().cast_const();
            (start as usize).is_multiple_of(align).then_some(start)
        };
        Some(Self {
            // Linux aligns the table to 16; nothing here needs more than bytes.
            descriptors: part(state.desc_table, size * DESCRIPTOR_BYTES, 1)?,
            // le16 flags, idx, ring[size], used_event
            available: part(state.avail_ring, 6 + size * 2, 2)?.cast(),
            // le16 flags, idx; { le32 id, len } ring[size]; le16 avail_event
            used: part(state.used_ring, 6 + size * 8, 4)?.cast(),
            size: state.size,
            _memory: memory.clone(),
        })
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The available ring's index: how many chains the driver has made available so far.
    pub fn available_index(&self) -> u16 {
        u16::from_le(self.available(1).load(Ordering::Acquire))
    }

    /// The head of the chain that was made available as number `position`.
    pub fn available_head(&self, position: u16) -> u16 {
        let slot = usize::from(position & (self.size - 1));
        u16::from_le(self.available(RING + slot).load(Ordering::Relaxed))
    }

    /// The available ring's flags (`VIRTQ_AVAIL_F_*`).
    pub fn available_flags(&self) -> u16 {
        u16::from_le(self.available(0).load(Ordering::Relaxed))
    }

    /// With `EVENT_IDX`: the used index whose passing the driver wants to hear of.
    pub fn used_event(&self) -> u16 {
        u16::from_le(
            self.available(RING + usize::from(self.size))
                .load(Ordering::Relaxed),
        )
    }

    /// A copy of descriptor `index`; `None` beyond the table.
    pub fn descriptor(&self, index: u16) -> Option<Descriptor> {
        if index >= self.size {
            return None;
        }
        let at = self
            .descriptors
            .wrapping_add(usize::from(index) * DESCRIPTOR_BYTES);
        // SAFETY: the index was checked; by the invariant the table is mapped. The bytes are
        // copied as volatile because the guest may write them meanwhile; any value is valid.
        let bytes = unsafe { at.cast::<[u8; DESCRIPTOR_BYTES]>().read_volatile() };
        Some(Descriptor::decode(&bytes))
    }

    /// Writes the entry number `position` of the used ring; the driver does not look at it before
    /// the index has passed it.
    pub fn write_used(&self, position: u16, head: u16, written: u32) {
        let slot = usize::from(position & (self.size - 1));
        let entry = self.used_entry(slot);
        entry[0].store(u32::from(head).to_le(), Ordering::Relaxed);
        entry[1].store(written.to_le(), Ordering::Relaxed);
    }

    /// Shows the driver all used entries before `index`.
    pub fn publish_used(&self, index: u16) {
        self.used(1).store(index.to_le(), Ordering::Release);
    }

    /// Without `EVENT_IDX`: asks the driver for kicks, or for none.
    pub fn set_used_flags(&self, flags: u16) {
        self.used(0).store(flags.to_le(), Ordering::Relaxed);
    }

    /// With `EVENT_IDX`: asks the driver for a kick when its index passes `index`.
    pub fn set_available_event(&self, index: u16) {
        self.used(RING + usize::from(self.size) * 4)
            .store(index.to_le(), Ordering::Relaxed);
    }

    /// Orders writes before it against reads behind it: between publishing and looking at what the
    /// other side asks for.
    pub fn barrier() {
        fence(Ordering::SeqCst);
    }

    /// Two bytes of the available ring, which has `3 + size` of these.
    fn available(&self, at: usize) -> &AtomicU16 {
        debug_assert!(at <= RING + usize::from(self.size));
        // SAFETY: the callers stay within the `6 + 2 size` bytes of the invariant; it also gives
        // the alignment. The guest's accesses are atomic for the purposes of virtio.
        unsafe { &*self.available.wrapping_add(at) }
    }

    /// Two bytes of the used ring, which has `3 + 4 size` of these.
    fn used(&self, at: usize) -> &AtomicU16 {
        debug_assert!(at <= RING + usize::from(self.size) * 4);
        // SAFETY: as for the available ring, within `6 + 8 size` bytes.
        unsafe { &*self.used.wrapping_add(at) }
    }

    /// `id` and `len` of an entry of the used ring.
    fn used_entry(&self, slot: usize) -> &[AtomicU32; 2] {
        debug_assert!(slot < usize::from(self.size));
        // SAFETY: the slot is below the size, so that the entry's 8 bytes at `4 + 8 slot` lie in
        // the used ring; it is aligned to 4 by the invariant.
        unsafe { &*self.used.wrapping_add(RING + slot * 4).cast() }
    }
}
