//! What the guest's ports and addresses reach.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use super::Event;
use crate::acpi::EVENT_PCI;
use crate::devices::{HotPlug, Power, Rtc, SerialPort};
use crate::kvm::Guest;
use crate::layout::{self, port};
use crate::pci::PciBus;
use crate::snapshot::PlatformState;

/// Every device, in the order of their ports.
#[derive(Debug)]
pub(super) struct Platform {
    serial: Arc<SerialPort>,
    clock: Mutex<Rtc>,
    power: Power,
    hot_plug: HotPlug,
    pci: PciBus,
    events: Sender<Event>,
    /// The machine was told its end: a guest that repeats it does not fill memory with events.
    ended: AtomicBool,
}

const SERIAL_LAST: u16 = port::SERIAL + port::SERIAL_LEN - 1;
const CONFIG_DATA_LAST: u16 = port::PCI_CONFIG_DATA + 3;
const ACPI_EVENTS_LAST: u16 = port::ACPI_EVENTS + 3;
const PCI_EJECT_LAST: u16 = port::PCI_EJECT + 3;
const ECAM_END: u64 = layout::PCI_ECAM + layout::PCI_ECAM_SIZE;

impl Platform {
    pub(super) fn new(
        serial: Arc<SerialPort>,
        power: Power,
        pci: PciBus,
        events: Sender<Event>,
    ) -> Self {
        Self {
            serial,
            clock: Mutex::default(),
            power,
            hot_plug: HotPlug::default(),
            pci,
            events,
            ended: AtomicBool::new(false),
        }
    }

    /// What a snapshot keeps.
    pub(super) fn save(&self) -> PlatformState {
        let clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        PlatformState {
            serial: self.serial.save(),
            clock_register: clock.selected(),
            events: self.power.events(),
            hot_plug: self.hot_plug.unseen(),
            pci_address: self.pci.address(),
        }
    }

    /// Sets it.
    pub(super) fn restore(&self, state: &PlatformState) -> io::Result<()> {
        self.serial.restore(&state.serial)?;
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.select(state.clock_register);
        self.hot_plug.restore(state.hot_plug);
        if state.events != 0 {
            self.power.tell(state.events);
        }
        self.pci.set_address(state.pci_address);
        Ok(())
    }

    pub(super) fn power(&self) -> &Power {
        &self.power
    }

    pub(super) fn pci(&self) -> &PciBus {
        &self.pci
    }

    /// Tells the guest that there is a device in a place on the bus.
    pub(super) fn came(&self, place: usize) {
        self.hot_plug.came(place);
        self.power.tell(EVENT_PCI);
    }

    /// Asks the guest to let go of a device.
    pub(super) fn shall_go(&self, place: usize) {
        self.hot_plug.shall_go(place);
        self.power.tell(EVENT_PCI);
    }

    /// The guest lets go of devices, asked or not. The host bridge is none.
    fn eject(&self, places: u32) {
        for place in (1..32).filter(|place| places >> place & 1 == 1) {
            if self.pci.unplug(place) {
                // Nobody listens when the machine is being torn down.
                let _ = self.events.send(Event::Ejected(place));
            }
        }
    }

    fn write_power(&self, number: u16, value: u8) {
        let Some(event) = self.power.write(number, value) else {
            return;
        };
        if !self.ended.swap(true, Ordering::Relaxed) {
            // Nobody listens when the machine is being torn down.
            let _ = self.events.send(Event::Power(event));
        }
    }
}

/// Devices with registers of one byte take longer accesses as a string instruction's: one after another,
/// at the same port.
impl Guest for Platform {
    fn read_port(&self, number: u16, data: &mut [u8]) {
        match number {
            port::SERIAL..=SERIAL_LAST => {
                let register = offset(number, port::SERIAL);
                data.fill_with(|| self.serial.read(register));
            }
            port::RTC_DATA => {
                let clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
                data.fill_with(|| clock.read());
            }
            port::ACPI_SLEEP_CONTROL..=port::ACPI_RESET
            | port::ACPI_EVENTS..=ACPI_EVENTS_LAST
            | port::I8042_DATA
            | port::I8042_COMMAND => self.power.read(number, data),
            port::PCI_CAME..=PCI_EJECT_LAST => self.hot_plug.read(number, data),
            port::PCI_CONFIG_ADDRESS | port::PCI_CONFIG_DATA..=CONFIG_DATA_LAST => {
                self.pci.read_port(number, data);
            }
            _ => data.fill(0xff),
        }
    }

    fn write_port(&self, number: u16, data: &[u8]) {
        match number {
            port::SERIAL..=SERIAL_LAST => {
                let register = offset(number, port::SERIAL);
                for byte in data {
                    self.serial.write(register, *byte);
                }
            }
            port::RTC_INDEX => {
                let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
                for byte in data {
                    clock.select(*byte);
                }
            }
            port::ACPI_SLEEP_CONTROL | port::ACPI_RESET | port::I8042_COMMAND => {
                for byte in data {
                    self.write_power(number, *byte);
                }
            }
            port::PCI_EJECT => {
                if let Ok(places) = data.try_into() {
                    self.eject(u32::from_le_bytes(places));
                }
            }
            port::PCI_CONFIG_ADDRESS | port::PCI_CONFIG_DATA..=CONFIG_DATA_LAST => {
                self.pci.write_port(number, data);
            }
            _ => {}
        }
    }

    fn read_memory(&self, address: u64, data: &mut [u8]) {
        match address {
            layout::PCI_ECAM..ECAM_END => {
                self.pci
                    .read_mapped_config(address - layout::PCI_ECAM, data);
            }
            _ => self.pci.read_memory(address, data),
        }
    }

    fn write_memory(&self, address: u64, data: &[u8]) {
        match address {
            layout::PCI_ECAM..ECAM_END => {
                self.pci
                    .write_mapped_config(address - layout::PCI_ECAM, data);
            }
            _ => self.pci.write_memory(address, data),
        }
    }
}

fn offset(number: u16, first: u16) -> u8 {
    u8::try_from(number - first).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::console::Buffer;
    use crate::devices::PowerEvent;
    use crate::pci::HostBridge;

    fn platform() -> (Platform, Arc<Buffer>, Receiver<Event>) {
        let buffer = Buffer::new();
        let (serial, _line) = SerialPort::new(buffer.output()).unwrap();
        let pci = PciBus::default();
        pci.plug_at(0, HostBridge::default()).unwrap();
        pci.plug_at(3, HostBridge::default()).unwrap();
        let (sender, receiver) = channel();
        let power = Power::new().unwrap();
        let platform = Platform::new(Arc::new(serial), power, pci, sender);
        (platform, buffer, receiver)
    }

    fn read<const N: usize>(platform: &Platform, number: u16) -> [u8; N] {
        let mut data = [0; N];
        platform.read_port(number, &mut data);
        data
    }

    #[test]
    fn ports_reach_their_devices() {
        let (platform, buffer, _events) = platform();
        platform.write_port(0x3f8, b"text");
        assert_eq!(buffer.take_now(), b"text");
        platform.write_port(0x70, &[0x0d]);
        assert_eq!(read(&platform, 0x71), [0x80]);
        assert_eq!(read(&platform, 0x604), [0; 4]);
        platform.write_port(0xcf8, &0x8000_0000_u32.to_le_bytes());
        assert_eq!(read(&platform, 0xcfc), [0x36, 0x1b]);
        assert_eq!(read(&platform, 0x1234), [0xff; 4]);
        assert_eq!(read(&platform, 0x64), [0]);
        let mut mapped = [0; 4];
        platform.read_memory(layout::PCI_ECAM, &mut mapped);
        assert_eq!(mapped, [0x36, 0x1b, 8, 0]);
        platform.read_memory(layout::PCI_WINDOW, &mut mapped);
        assert_eq!(mapped, [0xff; 4]);
    }

    #[test]
    fn the_machine_is_told_its_end_once() {
        let (platform, _buffer, events) = platform();
        for _ in 0..1000 {
            platform.write_port(0x602, &[1]);
            platform.write_port(0x64, &[0xfe]);
        }
        let told: Vec<Event> = events.try_iter().collect();
        assert!(matches!(told[..], [Event::Power(PowerEvent::Reset)]));
    }

    #[test]
    fn a_guest_lets_go_of_devices_but_not_of_the_host_bridge() {
        let (platform, _buffer, events) = platform();
        platform.came(3);
        assert_eq!(read(&platform, 0x604), [2, 0, 0, 0]);
        assert_eq!(read(&platform, 0x608), [8, 0, 0, 0]);
        assert_eq!(read(&platform, 0x608), [0; 4]);
        platform.shall_go(3);
        assert_eq!(read(&platform, 0x60c), [8, 0, 0, 0]);
        platform.write_port(0x610, &[0xff]);
        for _ in 0..100 {
            platform.write_port(0x610, &[0xff; 4]);
        }
        let told: Vec<Event> = events.try_iter().collect();
        assert!(matches!(told[..], [Event::Ejected(3)]));
        let config = |place: u64| {
            let mut data = [0; 2];
            platform.read_memory(layout::PCI_ECAM + (place << 15), &mut data);
            data
        };
        assert_eq!((config(0), config(3)), ([0x36, 0x1b], [0xff; 2]));
    }

    proptest::proptest! {
        #[test]
        fn any_access_is_answered(
            accesses: Vec<(bool, u16, u64, Vec<u8>)>,
        ) {
            let (platform, _buffer, _events) = platform();
            for (is_write, number, address, mut data) in accesses {
                data.truncate(8);
                for number in [number, 0x60 + number % 0x20, 0x3f0 + number % 16, 0x600 + number % 0x18] {
                    if is_write {
                        platform.write_port(number, &data);
                    } else {
                        platform.read_port(number, &mut data);
                    }
                }
                for address in [address, layout::PCI_ECAM + address % 0x10_0000] {
                    platform.write_memory(address, &data);
                    platform.read_memory(address, &mut data);
                }
            }
        }
    }
}
