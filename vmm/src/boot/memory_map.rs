//! Which addresses are memory: the "e820" map of the zero page, which PVH takes too.

use crate::layout;
use crate::memory::GuestMemory;

/// What a range is for; values of ACPI's address range types (ACPI 6.4, 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ram = 1,
    Reserved = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) address: u64,
    pub(super) size: u64,
    pub(super) kind: Kind,
}

/// Ranges in the order of their addresses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MemoryMap(pub(super) Vec<Range>);

impl MemoryMap {
    pub(super) fn of(memory: &GuestMemory) -> Self {
        let range = |kind, start: u64, end: u64| Range {
            address: start,
            size: end.saturating_sub(start),
            kind,
        };
        let ecam_end = layout::PCI_ECAM + layout::PCI_ECAM_SIZE;
        let mut ranges = vec![
            range(Kind::Ram, 0, layout::LOW_MEMORY_END),
            // ACPI tables: memory that the guest must leave alone.
            range(Kind::Reserved, layout::RSDP, layout::HIGH_MEMORY),
            range(Kind::Ram, layout::HIGH_MEMORY, memory.low_end()),
            range(Kind::Reserved, layout::PCI_ECAM, ecam_end),
            range(Kind::Ram, layout::HOLE_END, memory.high_end()),
        ];
        ranges.retain(|range| range.size > 0);
        Self(ranges)
    }
}
