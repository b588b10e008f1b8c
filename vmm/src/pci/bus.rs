//! Bus 0: 32 devices of one function, reached by ports, by mapped configuration space, and at the
//! addresses that the guest gave them.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::layout::port;

/// Devices on a bus.
const DEVICES: usize = 32;
/// Configuration address register: bit 31 lets the data register work (PCI 3.0, figure 3-2).
const ENABLE: u32 = 1 << 31;

/// A device's function 0. It must take whatever the guest writes.
pub trait Function: Send {
    /// Fills `data` from configuration space.
    fn read_config(&mut self, offset: usize, data: &mut [u8]);
    /// Writes to configuration space.
    fn write_config(&mut self, offset: usize, data: &[u8]);
    /// The addresses it answers to at present.
    fn decoded(&self) -> Option<Range<u64>>;
    /// Fills `data` from its memory; `offset` counts from the start of [`decoded`](Self::decoded).
    fn read_memory(&mut self, offset: u64, data: &mut [u8]);
    /// Writes to its memory.
    fn write_memory(&mut self, offset: u64, data: &[u8]);
}

/// A function on the bus.
pub type SharedFunction = Arc<Mutex<dyn Function>>;

/// The bus. Each device has a lock of its own.
#[derive(Default)]
pub struct PciBus {
    /// The port's address register.
    address: AtomicU32,
    slots: RwLock<Slots>,
}

#[derive(Default)]
struct Slots {
    devices: [Option<SharedFunction>; DEVICES],
    /// What each device said it answers to when its configuration was last written.
    decoded: [Option<Range<u64>>; DEVICES],
}

impl PciBus {
    /// What the guest wrote into the port's address register.
    #[must_use]
    pub fn address(&self) -> u32 {
        self.address.load(Ordering::Relaxed)
    }

    /// Sets it.
    pub fn set_address(&self, address: u32) {
        self.address.store(address, Ordering::Relaxed);
    }

    /// Puts a device into a place. `None` where there is no such place, or somebody has it.
    pub fn plug_at(&self, place: usize, function: impl Function + 'static) -> Option<()> {
        self.plug_shared(place, Arc::new(Mutex::new(function)))
    }

    /// The same, for a device that somebody else keeps an eye on.
    pub fn plug_shared(&self, place: usize, function: SharedFunction) -> Option<()> {
        // Before the bus's own lock, as everywhere.
        let decoded = lock(&function).decoded();
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.devices.get(place)?.is_some() {
            return None;
        }
        slots.decoded[place] = decoded;
        slots.devices[place] = Some(function);
        Some(())
    }

    /// The first place that nobody has, and that is not reserved.
    #[must_use]
    pub fn free_place(&self, reserved: &[usize]) -> Option<usize> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        (0..DEVICES).find(|place| slots.devices[*place].is_none() && !reserved.contains(place))
    }

    /// Takes a device away; false where none was. A processor that is using it finishes that.
    pub fn unplug(&self, place: usize) -> bool {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let Some(device) = slots.devices.get_mut(place) else {
            return false;
        };
        let gone = device.take();
        slots.decoded[place] = None;
        drop(slots);
        gone.is_some()
    }

    /// Fills `data` from one of the configuration ports.
    pub fn read_port(&self, number: u16, data: &mut [u8]) {
        data.fill(0xff);
        let address = self.address.load(Ordering::Relaxed);
        match number {
            port::PCI_CONFIG_ADDRESS if data.len() == 4 => {
                data.copy_from_slice(&address.to_le_bytes());
            }
            _ => {
                if let Some((device, offset)) = target(address, number, data.len()) {
                    self.read_config(device, offset, data);
                }
            }
        }
    }

    /// Writes to one of the configuration ports.
    pub fn write_port(&self, number: u16, data: &[u8]) {
        if number == port::PCI_CONFIG_ADDRESS {
            if let Ok(bytes) = data.try_into() {
                self.address
                    .store(u32::from_le_bytes(bytes), Ordering::Relaxed);
            }
            return;
        }
        let address = self.address.load(Ordering::Relaxed);
        if let Some((device, offset)) = target(address, number, data.len()) {
            self.write_config(device, offset, data);
        }
    }

    /// Fills `data` from mapped configuration space; `offset` counts from its start.
    pub fn read_mapped_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((device, offset)) = mapped_target(offset) {
            self.read_config(device, offset, data);
        }
    }

    /// Writes to mapped configuration space.
    pub fn write_mapped_config(&self, offset: u64, data: &[u8]) {
        if let Some((device, offset)) = mapped_target(offset) {
            self.write_config(device, offset, data);
        }
    }

    /// Fills `data` from the device that answers at `address`; ones if none does.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((device, offset)) = self.at(address, data.len()) {
            lock(&device).read_memory(offset, data);
        }
    }

    /// Writes to the device that answers at `address`.
    pub fn write_memory(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.at(address, data.len()) {
            lock(&device).write_memory(offset, data);
        }
    }

    fn read_config(&self, device: usize, offset: usize, data: &mut [u8]) {
        if let Some(device) = self.device(device) {
            lock(&device).read_config(offset, data);
        }
    }

    fn write_config(&self, place: usize, offset: usize, data: &[u8]) {
        let Some(device) = self.device(place) else {
            return;
        };
        let mut function = lock(&device);
        function.write_config(offset, data);
        // Still under the device's lock: two writers would leave the wrong one's answer otherwise.
        let decoded = function.decoded();
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        // It may have been unplugged meanwhile.
        if slots.devices[place]
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, &device))
        {
            slots.decoded[place] = decoded;
        }
    }

    fn device(&self, place: usize) -> Option<SharedFunction> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.devices.get(place)?.clone()
    }

    fn at(&self, address: u64, len: usize) -> Option<(SharedFunction, u64)> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let end = address.checked_add(len as u64)?;
        let holds = |range: &Range<u64>| range.start <= address && end <= range.end;
        let (place, range) = slots
            .decoded
            .iter()
            .enumerate()
            .find_map(|(place, range)| {
                range.as_ref().filter(|it| holds(it)).map(|it| (place, it))
            })?;
        Some((slots.devices[place].clone()?, address - range.start))
    }
}

impl fmt::Debug for PciBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let devices = slots.devices.iter().flatten().count();
        f.debug_struct("PciBus").field("devices", &devices).finish()
    }
}

fn lock(device: &SharedFunction) -> MutexGuard<'_, dyn Function + 'static> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Device and offset behind the data ports; functions other than 0 and other buses are not there.
fn target(address: u32, number: u16, len: usize) -> Option<(usize, usize)> {
    let within = number
        .checked_sub(port::PCI_CONFIG_DATA)
        .filter(|it| *it < 4)?;
    let within = usize::from(within);
    let is_here = address & ENABLE != 0 && address & 0x00ff_0700 == 0;
    if !is_here || within + len > 4 {
        return None;
    }
    let device = (address >> 11) & 0x1f;
    let register = usize::try_from(address & 0xfc).ok()?;
    Some((usize::try_from(device).ok()?, register + within))
}

/// The same for mapped configuration space: 4 KiB for each function, eight functions.
fn mapped_target(offset: u64) -> Option<(usize, usize)> {
    let function = offset >> 12;
    if function & 7 != 0 {
        return None;
    }
    let register = usize::try_from(offset & 0xfff).ok()?;
    Some((usize::try_from(function >> 3).ok()?, register))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::{Bar, ConfigSpace, HostBridge, Identity};

    /// Eight bytes of memory that can be read and written.
    struct Notebook {
        config: ConfigSpace,
        bytes: [u8; 8],
    }

    impl Notebook {
        fn at(address: u32) -> Self {
            let identity = Identity {
                vendor: 0x1234,
                device: 0x5678,
                revision: 0,
                class: [0, 0, 5],
                subsystem: (0, 0),
            };
            let size = 4096;
            Self {
                config: ConfigSpace::new(identity, Some(Bar { address, size })),
                bytes: [0; 8],
            }
        }
    }

    impl Function for Notebook {
        fn read_config(&mut self, offset: usize, data: &mut [u8]) {
            self.config.read(offset, data);
        }

        fn write_config(&mut self, offset: usize, data: &[u8]) {
            self.config.write(offset, data);
        }

        fn decoded(&self) -> Option<Range<u64>> {
            self.config.decoded()
        }

        fn read_memory(&mut self, offset: u64, data: &mut [u8]) {
            let offset = usize::try_from(offset).unwrap();
            data.copy_from_slice(&self.bytes[offset..offset + data.len()]);
        }

        fn write_memory(&mut self, offset: u64, data: &[u8]) {
            let offset = usize::try_from(offset).unwrap();
            self.bytes[offset..offset + data.len()].copy_from_slice(data);
        }
    }

    fn bus() -> PciBus {
        let bus = PciBus::default();
        assert_eq!(bus.plug_at(0, HostBridge::default()), Some(()));
        assert_eq!(bus.plug_at(1, Notebook::at(0xc000_0000)), Some(()));
        bus
    }

    fn mapped_u32(bus: &PciBus, offset: u64) -> u32 {
        let mut data = [0; 4];
        bus.read_mapped_config(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn ports_and_memory_show_the_same_configuration() {
        let bus = bus();
        bus.write_port(0xcf8, &(ENABLE | 1 << 11).to_le_bytes());
        let mut data = [0; 4];
        bus.read_port(0xcfc, &mut data);
        assert_eq!(u32::from_le_bytes(data), 0x5678_1234);
        assert_eq!(mapped_u32(&bus, 1 << 15), 0x5678_1234);
        let mut half = [0; 2];
        bus.read_port(0xcfe, &mut half);
        assert_eq!(u16::from_le_bytes(half), 0x5678);
        assert_eq!(mapped_u32(&bus, 0), 0x0008_1b36);
    }

    #[test]
    fn nobody_is_read_as_ones() {
        let bus = bus();
        for offset in [2 << 15, 1 << 12, 1 << 20, u64::MAX] {
            assert_eq!(mapped_u32(&bus, offset), u32::MAX, "{offset:#x}");
        }
        for address in [1 << 11, ENABLE | 1 << 16, ENABLE | 1 << 8, ENABLE | 2 << 11] {
            bus.write_port(0xcf8, &u32::to_le_bytes(address));
            let mut data = [0; 4];
            bus.read_port(0xcfc, &mut data);
            assert_eq!(data, [0xff; 4], "{address:#x}");
        }
    }

    #[test]
    fn a_device_answers_where_the_guest_put_it() {
        let bus = bus();
        let config = 1 << 15;
        let read = |address| {
            let mut data = [0; 4];
            bus.read_memory(address, &mut data);
            u32::from_le_bytes(data)
        };
        bus.write_memory(0xc000_0000, &[1, 2, 3, 4]);
        assert_eq!(read(0xc000_0000), u32::MAX);
        bus.write_mapped_config(config + 4, &[2, 0]);
        assert_eq!(read(0xc000_0000), 0);
        bus.write_memory(0xc000_0000, &[1, 2, 3, 4]);
        bus.write_mapped_config(config + 0x10, &0xd000_0000_u32.to_le_bytes());
        assert_eq!(read(0xc000_0000), u32::MAX);
        assert_eq!(read(0xd000_0000), 0x0403_0201);
        assert_eq!(read(u64::MAX - 1), u32::MAX);
        assert_eq!(read(0xd000_0ffe), u32::MAX);
    }

    #[test]
    fn a_full_bus_takes_no_more() {
        let bus = PciBus::default();
        for place in 0..DEVICES {
            assert_eq!(bus.free_place(&[]), Some(place));
            assert_eq!(bus.plug_at(place, HostBridge::default()), Some(()));
        }
        assert_eq!(bus.free_place(&[]), None);
        assert_eq!(bus.plug_at(5, HostBridge::default()), None);
        assert_eq!(bus.plug_at(DEVICES, HostBridge::default()), None);
    }

    #[test]
    fn a_device_that_was_unplugged_answers_no_more() {
        let bus = bus();
        bus.write_mapped_config((1 << 15) + 4, &[2, 0]);
        assert!(bus.unplug(1));
        assert!(!bus.unplug(1) && !bus.unplug(DEVICES));
        let mut data = [0; 4];
        bus.read_memory(0xc000_0000, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(mapped_u32(&bus, 1 << 15), u32::MAX);
        assert_eq!(bus.free_place(&[1]), Some(2));
        assert_eq!(bus.plug_at(1, Notebook::at(0xc000_0000)), Some(()));
        assert_eq!(mapped_u32(&bus, 1 << 15), 0x5678_1234);
    }

    proptest::proptest! {
        #[test]
        fn any_access_is_answered(
            accesses: Vec<(bool, u64, u32, u8)>,
        ) {
            let bus = bus();
            for (is_write, offset, value, len) in accesses {
                let len = usize::from(len % 5);
                let mut data = value.to_le_bytes()[..len.min(4)].to_vec();
                let number = 0xcf8 + u16::try_from(offset % 8).unwrap();
                if is_write {
                    bus.write_port(number, &data);
                    bus.write_mapped_config(offset, &data);
                    bus.write_mapped_config((1 << 15) | (offset % 4096), &data);
                } else {
                    bus.read_port(number, &mut data);
                    bus.read_mapped_config(offset, &mut data);
                    bus.read_mapped_config((1 << 15) | (offset % 4096), &mut data);
                }
            }
        }
    }
}
