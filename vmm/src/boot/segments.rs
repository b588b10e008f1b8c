//! Flat segments, and the descriptor table that the Linux boot protocol asks for: code at selector
//! 0x10, data at 0x18 (boot.rst, "64-bit boot protocol").

use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use crate::layout;
use crate::memory::GuestMemory;

/// A flat segment: base 0, limit 4 GiB, privilege level 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its place in the table, times eight.
    pub selector: u16,
    /// Type field of its descriptor (Intel SDM volume 3, table 3-1).
    pub kind: u8,
    /// 64-bit code.
    pub long: bool,
    /// 32-bit operands and stack.
    pub big: bool,
}

/// Code, readable, accessed.
const CODE: u8 = 0b1011;
/// Data, writable, accessed.
const WRITABLE_DATA: u8 = 0b0011;

pub(super) const CODE_64: Segment = Segment {
    selector: 0x10,
    kind: CODE,
    long: true,
    big: false,
};
pub(super) const CODE_32: Segment = Segment {
    long: false,
    big: true,
    ..CODE_64
};
pub(super) const DATA: Segment = Segment {
    selector: 0x18,
    kind: WRITABLE_DATA,
    long: false,
    big: true,
};

const ENTRIES: usize = 4;
/// Bytes of the table, less one.
pub(super) const GDT_LIMIT: u16 = 8 * 4 - 1;

impl Segment {
    /// As the descriptor table holds it (Intel SDM volume 3, figure 3-8).
    fn descriptor(self) -> u64 {
        const LIMIT_LOW: u64 = 0xffff;
        const LIMIT_HIGH: u64 = 0xf << 48;
        const CODE_OR_DATA: u64 = 1 << 44;
        const PRESENT: u64 = 1 << 47;
        const PAGES: u64 = 1 << 55;
        let kind = u64::from(self.kind) << 40;
        let mode = u64::from(self.long) << 53 | u64::from(self.big) << 54;
        LIMIT_LOW | LIMIT_HIGH | CODE_OR_DATA | PRESENT | PAGES | kind | mode
    }
}

pub(super) fn write_table(memory: &GuestMemory) -> Result<(), BootError> {
    let mut table = [0_u64; ENTRIES];
    for segment in [CODE_64, DATA] {
        table[usize::from(segment.selector / 8)] = segment.descriptor();
    }
    let bytes: Vec<u8> = table.into_iter().flat_map(u64::to_le_bytes).collect();
    memory
        .mapped()
        .write_slice(&bytes, GuestAddress(layout::GDT))
        .map_err(|_| BootError::Write("the descriptor table"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that every x86-64 boot loader's table holds.
    #[test]
    fn descriptors_are_the_flat_ones() {
        assert_eq!(CODE_64.descriptor(), 0x00af_9b00_0000_ffff);
        assert_eq!(CODE_32.descriptor(), 0x00cf_9b00_0000_ffff);
        assert_eq!(DATA.descriptor(), 0x00cf_9300_0000_ffff);
    }
}
