//! Where a virtio function's structures are in its base address 0, and the capabilities that say so
//! (virtio 1.2, 4.1.4).

use crate::pci::{Bar, ConfigSpace};

/// Vendor-specific capability.
const CAPABILITY: u8 = 0x09;
/// Bytes of base address 0.
pub(super) const BAR_SIZE: u32 = 0x8000;
/// Bytes of each structure's place; the message table's two pages begin at `MSIX_TABLE`.
pub(super) const PLACE: u64 = 0x1000;
pub(super) const COMMON: u64 = 0;
pub(super) const ISR: u64 = 0x1000;
pub(super) const DEVICE: u64 = 0x2000;
pub(super) const NOTIFY: u64 = 0x3000;
pub(super) const MSIX_TABLE: u32 = 0x4000;
pub(super) const MSIX_PENDING: u32 = 0x5000;
/// Each queue is notified at an address of its own, so that each has its own event in the kernel.
pub(super) const NOTIFY_MULTIPLIER: u32 = 4;
/// Queues that have a place to be notified and a vector: more than any device of ours.
pub(super) const MOST_QUEUES: usize = 255;

/// Structure types (`cfg_type`).
const TYPE_COMMON: u8 = 1;
const TYPE_NOTIFY: u8 = 2;
const TYPE_ISR: u8 = 3;
const TYPE_DEVICE: u8 = 4;
const TYPE_PCI: u8 = 5;

/// Fields of the capability that accesses base addresses through configuration space.
pub(super) mod access {
    pub(in super::super) const BAR: usize = 4;
    pub(in super::super) const OFFSET: usize = 8;
    pub(in super::super) const LENGTH: usize = 12;
    pub(in super::super) const DATA: usize = 16;
}

pub(super) fn bar(address: u32) -> Bar {
    Bar {
        address,
        size: BAR_SIZE,
    }
}

/// Adds all capabilities; the offset of the one that accesses base addresses. `None`: no room.
pub(super) fn add_capabilities(config: &mut ConfigSpace, device_config: u32) -> Option<usize> {
    let place = |offset: u64| u32::try_from(offset).ok();
    let mut add = |kind: u8, offset: u32, length: u32, more: &[u8]| {
        let mut body = body(kind, offset, length, more)?;
        body.extend(more);
        let writable = writable(kind);
        config.add_capability(CAPABILITY, &body, &writable)
    };
    let page = place(PLACE)?;
    add(TYPE_COMMON, place(COMMON)?, page, &[])?;
    add(TYPE_ISR, place(ISR)?, 4, &[])?;
    // Not every kind of device has a configuration, and drivers do not like one of no length.
    if device_config > 0 {
        add(TYPE_DEVICE, place(DEVICE)?, device_config, &[])?;
    }
    let multiplier = NOTIFY_MULTIPLIER.to_le_bytes();
    add(TYPE_NOTIFY, place(NOTIFY)?, page, &multiplier)?;
    add(TYPE_PCI, 0, 0, &[0; 4])
}

/// `struct virtio_pci_cap` without its first two bytes.
fn body(kind: u8, offset: u32, length: u32, more: &[u8]) -> Option<Vec<u8>> {
    const LENGTH: usize = 16;
    let mut body = vec![u8::try_from(LENGTH + more.len()).ok()?, kind, 0, 0, 0, 0];
    body.extend(offset.to_le_bytes());
    body.extend(length.to_le_bytes());
    Some(body)
}

/// The guest chooses base address, offset, length and data of an access, and nothing else.
fn writable(kind: u8) -> Vec<u8> {
    if kind != TYPE_PCI {
        return Vec::new();
    }
    let mut mask = vec![0; 18];
    mask[access::BAR - 2] = 0xff;
    mask[access::OFFSET - 2..].fill(0xff);
    mask
}
