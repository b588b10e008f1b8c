//! A function's configuration space: 256 bytes, some of whose bits the guest may write.

use std::ops::Range;

/// Offsets in the header (PCI local bus specification 3.0, figure 6-1).
mod offset {
    pub(super) const VENDOR: usize = 0x00;
    pub(super) const DEVICE: usize = 0x02;
    pub(super) const COMMAND: usize = 0x04;
    pub(super) const STATUS: usize = 0x06;
    pub(super) const REVISION: usize = 0x08;
    pub(super) const CLASS: usize = 0x09;
    pub(super) const BAR0: usize = 0x10;
    pub(super) const SUBSYSTEM_VENDOR: usize = 0x2c;
    pub(super) const SUBSYSTEM: usize = 0x2e;
    pub(super) const CAPABILITIES: usize = 0x34;
    pub(super) const INTERRUPT_LINE: usize = 0x3c;
    pub(super) const FIRST_CAPABILITY: usize = 0x40;
}

const SIZE: usize = 256;
/// Command register: answer to memory addresses, act as bus master, no line interrupts.
const COMMAND_MEMORY: u8 = 1 << 1;
const COMMAND_WRITABLE: u16 = 1 << 1 | 1 << 2 | 1 << 10;
/// Status register: there is a list of capabilities.
const STATUS_CAPABILITIES: u8 = 1 << 4;

/// Who a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor's number.
    pub vendor: u16,
    /// The vendor's number for it.
    pub device: u16,
    /// Version.
    pub revision: u8,
    /// Interface, subclass, class.
    pub class: [u8; 3],
    /// Subsystem's vendor and number.
    pub subsystem: (u16, u16),
}

/// The only base address that functions of ours have: memory below 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Where it is at first.
    pub address: u32,
    /// Bytes, a power of two of at least 4096.
    pub size: u32,
}

/// The space with its rules.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    /// Bits that the guest may write.
    writable: [u8; SIZE],
    last_capability: Option<usize>,
    next_capability: usize,
    bar: Option<Bar>,
}

impl ConfigSpace {
    /// A function without capabilities, with base address 0 where `bar` says.
    #[must_use]
    pub fn new(identity: Identity, bar: Option<Bar>) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            last_capability: None,
            next_capability: offset::FIRST_CAPABILITY,
            bar,
        };
        let (subsystem_vendor, subsystem) = identity.subsystem;
        for (at, value) in [
            (offset::VENDOR, identity.vendor),
            (offset::DEVICE, identity.device),
            (offset::SUBSYSTEM_VENDOR, subsystem_vendor),
            (offset::SUBSYSTEM, subsystem),
        ] {
            space.put(at, &value.to_le_bytes());
        }
        space.bytes[offset::REVISION] = identity.revision;
        space.put(offset::CLASS, &identity.class);
        space.writable[offset::INTERRUPT_LINE] = 0xff;
        space.allow(offset::COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        if let Some(bar) = bar {
            space.put(offset::BAR0, &bar.address.to_le_bytes());
            // Lower bits read as zero: that is how a guest finds the size.
            space.allow(offset::BAR0, &(!(bar.size - 1)).to_le_bytes());
        }
        space
    }

    /// Adds a capability: `body` without its two bytes of header, and which of its bits can be written.
    /// Its offset; none where the space is full.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<usize> {
        let at = self.next_capability;
        let end = at + 2 + body.len();
        if end > SIZE {
            return None;
        }
        let name = u8::try_from(at).ok()?;
        match self.last_capability {
            Some(last) => self.bytes[last + 1] = name,
            None => self.bytes[offset::CAPABILITIES] = name,
        }
        self.bytes[offset::STATUS] |= STATUS_CAPABILITIES;
        self.bytes[at] = id;
        self.put(at + 2, body);
        self.allow(at + 2, writable);
        self.last_capability = Some(at);
        self.next_capability = end.next_multiple_of(4);
        Some(at)
    }

    /// Fills `data`. Beyond the end is nothing: zeros, so that no extended capability is found there.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes what the guest may write.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        for (at, byte) in (offset..).zip(data) {
            let Some(mask) = self.writable.get(at) else {
                return;
            };
            self.bytes[at] = (self.bytes[at] & !mask) | (byte & mask);
        }
    }

    /// The addresses the function answers to at present.
    #[must_use]
    pub fn decoded(&self) -> Option<Range<u64>> {
        let bar = self.bar?;
        if self.bytes[offset::COMMAND] & COMMAND_MEMORY == 0 {
            return None;
        }
        let start = u64::from(self.u32_at(offset::BAR0));
        Some(start..start + u64::from(bar.size))
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sets what the guest had written into a space like this one. False where it is not like this one: a
    /// bit that no guest can write differs, but for those that the function itself writes, behind the
    /// capabilities' headers.
    #[must_use]
    pub fn restore(&mut self, bytes: &[u8]) -> bool {
        let Ok(bytes): Result<[u8; SIZE], _> = bytes.try_into() else {
            return false;
        };
        let identity = 0..offset::FIRST_CAPABILITY;
        let differs = |at: usize| (bytes[at] ^ self.bytes[at]) & !self.writable[at] != 0;
        if identity.into_iter().any(differs) {
            return false;
        }
        self.write(0, &bytes);
        true
    }

    /// Two bytes at an offset within the space.
    #[must_use]
    pub fn u16_at(&self, offset: usize) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// Four bytes at an offset within the space.
    #[must_use]
    pub fn u32_at(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Sets bytes, whatever the guest may write.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(offset).zip(bytes) {
            *place = *byte;
        }
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        for (place, bits) in self.writable.iter_mut().skip(offset).zip(mask) {
            *place = *bits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity {
        vendor: 0x1af4,
        device: 0x1042,
        revision: 1,
        class: [0, 0x80, 0x01],
        subsystem: (0x1af4, 0x40),
    };
    const BAR: Bar = Bar {
        address: 0xc000_0000,
        size: 0x8000,
    };

    fn space() -> ConfigSpace {
        ConfigSpace::new(IDENTITY, Some(BAR))
    }

    #[test]
    fn the_header_says_who_it_is() {
        let space = space();
        assert_eq!(space.u32_at(0), 0x1042_1af4);
        assert_eq!(space.u32_at(8), 0x0180_0001);
        assert_eq!(space.u32_at(0x2c), 0x0040_1af4);
        assert_eq!(space.u32_at(0x10), 0xc000_0000);
    }

    #[test]
    fn a_guest_finds_the_size_of_a_base_address() {
        let mut space = space();
        space.write(0x10, &u32::MAX.to_le_bytes());
        assert_eq!(!space.u32_at(0x10) + 1, 0x8000);
        space.write(0x14, &u32::MAX.to_le_bytes());
        assert_eq!(space.u32_at(0x14), 0);
    }

    #[test]
    fn it_answers_where_it_was_put_and_only_when_told_to() {
        let mut space = space();
        assert_eq!(space.decoded(), None);
        space.write(4, &[2]);
        assert_eq!(space.decoded(), Some(0xc000_0000..0xc000_8000));
        space.write(0x10, &0xffff_ffff_u32.to_le_bytes());
        assert_eq!(space.decoded(), Some(0xffff_8000..0x1_0000_0000));
    }

    #[test]
    fn capabilities_are_a_list() {
        let mut space = space();
        let first = space.add_capability(9, &[1, 2, 3], &[]).unwrap();
        let second = space.add_capability(0x11, &[0xff; 10], &[0, 0xc0]).unwrap();
        assert_eq!((first, second), (0x40, 0x48));
        assert_eq!(space.u16_at(6) & 0x10, 0x10);
        assert_eq!(space.u32_at(0x34), 0x40);
        assert_eq!(space.u16_at(0x40), 0x4809);
        assert_eq!(space.u16_at(0x48), 0x0011);
        space.write(second + 2, &[0, 0]);
        assert_eq!(space.u16_at(second + 2), 0x3fff);
        assert_eq!(space.add_capability(9, &[0; 200], &[]), None);
    }

    proptest::proptest! {
        #[test]
        fn a_guest_changes_only_what_it_may(offset in 0_usize..5000, data: Vec<u8>) {
            let mut written = space();
            written.write(offset, &data);
            for at in 0..SIZE {
                let kept = !written.writable[at];
                proptest::prop_assert_eq!(written.bytes[at] & kept, space().bytes[at] & kept);
            }
        }
    }
}
