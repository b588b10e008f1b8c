//! A guest at the registers of a virtio function and of the PCI bus it is on.
//!
//! Accesses of twelve bytes: what (two bits: configuration by ports, mapped configuration, memory, all of it near the
//! device; one bit: write; the rest: how many bytes), three that are nothing, offset (4), value (4).

use vmm::pci::{HostBridge, PciBus};

use crate::function::{ADDRESS, function};

/// Accesses of one input at most.
const MOST: usize = 256;
/// Configuration of the device, mapped: 4096 bytes for each function, eight functions a device.
const CONFIG: u64 = 1 << 15;

fn access(bus: &PciBus, what: u8, offset: u32, value: [u8; 4]) {
    let mut eight = [value, value].concat();
    let data = &mut eight[..(usize::from(what >> 3) % 9).max(1)];
    let write = what & 4 != 0;
    // Ports are 1, 2 or 4 bytes wide.
    let port = 0xcf8 + (offset % 8) as u16;
    let near = CONFIG | u64::from(offset % 4096);
    let address = u64::from(ADDRESS) + u64::from(offset % 0x1_0000);
    match (what & 3, write) {
        (0, true) => bus.write_port(port, &data[..data.len().min(4)]),
        (0, false) => {
            let len = data.len().min(4);
            bus.read_port(port, &mut data[..len]);
        }
        (1, true) => bus.write_mapped_config(near, data),
        (1, false) => bus.read_mapped_config(near, data),
        (2, true) => bus.write_memory(address, data),
        (2, false) => bus.read_memory(address, data),
        (_, true) => bus.write_memory(offset.into(), data),
        (_, false) => bus.read_mapped_config(offset.into(), data),
    }
}

/// What one input does.
pub fn run(input: &[u8]) {
    let (function, connected) = function();
    let bus = PciBus::default();
    assert_eq!(bus.plug_at(0, HostBridge::default()), Some(()));
    assert_eq!(bus.plug_at(1, function), Some(()));
    for piece in input.chunks_exact(12).take(MOST) {
        let [what, _, _, _, place @ .., a, b, c, d] = piece else {
            return;
        };
        let offset = u32::from_le_bytes(place.try_into().unwrap());
        access(&bus, *what, offset, [*a, *b, *c, *d]);
    }
    assert!(bus.unplug(1));
    drop(bus);
    assert!(connected.is_empty(), "{connected:?} stays connected");
}
