//! The table with code: the devices that no bus finds, and what an event means.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, Device, EISAName, Equal, Field, FieldAccessType,
    FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed, Method,
    MethodCall, Name, Notify, OpRegion, OpRegionSpace, Package, Path, ResourceTemplate, Scope,
    Store,
};
use acpi_tables::sdt::Sdt;

use super::hot_plug::{self, Raw};
use super::{EVENT_PCI, EVENT_POWER_BUTTON, OEM, OEM_REVISION, OEM_TABLE, SLEEP_TYPE_OFF, bytes};
use crate::layout::{self, port};

/// Bytes of a table's header, which is all that `Sdt::new` writes.
const HEADER: u32 = 36;
/// Revision 2: integers have 64 bits.
const REVISION: u8 = 2;
/// "Status has changed", of a button: it was pressed (ACPI 6.4, table 5.162).
const BUTTON_PRESSED: u8 = 0x80;

/// The whole table.
pub(super) fn dsdt() -> Vec<u8> {
    let mut devices = pci_host();
    for device in [motherboard(), serial(), clock(), power_button(), events()] {
        devices.extend(device);
    }
    let mut table = Sdt::new(*b"DSDT", HEADER, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&Scope::raw(path("\\_SB_"), devices));
    let off = Package::new(vec![&SLEEP_TYPE_OFF, &0_u8, &0_u8, &0_u8]);
    table.append_slice(&bytes(&Name::new(path("_S5_"), &off)));
    table.as_slice().to_vec()
}

/// PCI Express host bridge with one bus. Devices signal by message, so there is no interrupt table.
fn pci_host() -> Vec<u8> {
    let window_end = layout::PCI_WINDOW + layout::PCI_WINDOW_SIZE - 1;
    let bus = AddressSpace::new_bus_number(0_u16, 0_u16);
    let ports = PortRange(port::PCI_CONFIG_ADDRESS, 8);
    let not_cacheable = AddressSpaceCacheable::NotCacheable;
    let window =
        AddressSpace::new_memory(not_cacheable, true, layout::PCI_WINDOW, window_end, None);
    let resources = ResourceTemplate::new(vec![&bus, &ports, &window]);
    bytes(&Device::new(
        path("PCI0"),
        vec![
            &Name::new(path("_HID"), &EISAName::new("PNP0A08")),
            &Name::new(path("_CID"), &EISAName::new("PNP0A03")),
            &Name::new(path("_SEG"), &0_u8),
            &Name::new(path("_UID"), &0_u8),
            &Name::new(path("_CRS"), &resources),
            &Raw(hot_plug::objects()),
        ],
    ))
}

/// Ports of a device that cannot be moved.
struct PortRange(u16, u8);

impl Aml for PortRange {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        IO::new(self.0, self.0, 1, self.1).to_aml_bytes(sink);
    }
}

/// Linux uses mapped configuration space only where a device of this kind reserves it (PCI firmware
/// specification 3.0, 4.1.2).
fn motherboard() -> Vec<u8> {
    let ecam = fixed_memory(layout::PCI_ECAM, layout::PCI_ECAM_SIZE);
    bytes(&Device::new(
        path("MB00"),
        vec![
            &Name::new(path("_HID"), &EISAName::new("PNP0C02")),
            &Name::new(path("_UID"), &0_u8),
            &Name::new(path("_CRS"), &ResourceTemplate::new(vec![&ecam])),
        ],
    ))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the configuration space lies below 4 GiB, as the disassembled table shows"
)]
fn fixed_memory(address: u64, len: u64) -> Memory32Fixed {
    Memory32Fixed::new(true, address as u32, len as u32)
}

fn serial() -> Vec<u8> {
    let ports = PortRange(port::SERIAL, 8);
    let line = line(layout::SERIAL_IRQ);
    let resources = ResourceTemplate::new(vec![&ports, &line]);
    bytes(&Device::new(
        path("COM1"),
        vec![
            &Name::new(path("_HID"), &EISAName::new("PNP0501")),
            &Name::new(path("_UID"), &0_u8),
            &Name::new(path("_CRS"), &resources),
        ],
    ))
}

fn clock() -> Vec<u8> {
    let ports = PortRange(port::RTC_INDEX, 2);
    bytes(&Device::new(
        path("RTC0"),
        vec![
            &Name::new(path("_HID"), &EISAName::new("PNP0B00")),
            &Name::new(path("_CRS"), &ResourceTemplate::new(vec![&ports])),
        ],
    ))
}

fn power_button() -> Vec<u8> {
    let id = EISAName::new("PNP0C0C");
    bytes(&Device::new(
        path("PWRB"),
        vec![&Name::new(path("_HID"), &id)],
    ))
}

/// Generic event device (ACPI 6.4, 5.6.9): on its interrupt `_EVT` reads, and so clears, the event
/// register and notifies whom it concerns.
fn events() -> Vec<u8> {
    let region = path("EVRG");
    let register = path("EVTS");
    let number = layout::ACPI_EVENT_IRQ;
    let pressed = And::new(&Local(1), &Local(0), &EVENT_POWER_BUTTON);
    let came_or_goes = And::new(&Local(1), &Local(0), &EVENT_PCI);
    let tell_bus = MethodCall::new(path("\\_SB_.PCI0.PCNT"), vec![]);
    bytes(&Device::new(
        path("GED0"),
        vec![
            &Name::new(path("_HID"), &"ACPI0013"),
            &Name::new(path("_UID"), &0_u8),
            &Name::new(path("_CRS"), &ResourceTemplate::new(vec![&line(number)])),
            &OpRegion::new(region, OpRegionSpace::SystemIO, &port::ACPI_EVENTS, &4_u8),
            &Field::new(
                path("EVRG"),
                FieldAccessType::DWord,
                FieldLockRule::NoLock,
                FieldUpdateRule::Preserve,
                vec![FieldEntry::Named(*b"EVTS", 32)],
            ),
            &Method::new(
                path("_EVT"),
                1,
                true,
                vec![&If::new(
                    &Equal::new(&Arg(0), &number),
                    vec![
                        &Store::new(&Local(0), &register),
                        &pressed,
                        &If::new(
                            &Local(1),
                            vec![&Notify::new(&path("\\_SB_.PWRB"), &BUTTON_PRESSED)],
                        ),
                        &came_or_goes,
                        &If::new(&Local(1), vec![&tell_bus]),
                    ],
                )],
            ),
        ],
    ))
}

/// An edge-triggered, active-high interrupt that nobody shares.
fn line(number: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, number)
}

fn path(name: &str) -> Path {
    Path::new(name)
}
