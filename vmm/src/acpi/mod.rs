//! ACPI tables of a hardware-reduced machine (ACPI 6.4, 4.1): no legacy power management hardware,
//! events arrive on an interrupt of their own.

mod dsdt;
mod hot_plug;
mod tables;

use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, rsdp::Rsdp};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress};

use crate::layout;
use crate::memory::GuestMemory;

/// Names every table carries: whose firmware, which board.
const OEM: [u8; 6] = *b"RINGSD";
const OEM_TABLE: [u8; 8] = *b"RINGSIDE";
const OEM_REVISION: u32 = 1;

/// Tables begin at multiples of this.
const ALIGNMENT: u64 = 16;

/// The event register's bit of the power button.
pub const EVENT_POWER_BUTTON: u32 = 1;
/// The event register's bit of the PCI bus: devices came or shall go.
pub const EVENT_PCI: u32 = 2;
/// SLP_TYP of "soft off", S5: what the DSDT's `_S5` names.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// What the reset register takes.
pub const RESET_VALUE: u8 = 1;

/// Why the tables are not in memory.
#[derive(Debug, Error)]
pub enum AcpiError {
    /// More processors than the tables' place has room for.
    #[error("the ACPI tables do not fit below 1 MiB")]
    Size,
    /// The place is not memory.
    #[error("cannot write the ACPI tables into the guest's memory")]
    Write(#[source] vm_memory::GuestMemoryError),
}

/// Writes all tables; the root pointer is at [`layout::RSDP`].
///
/// # Errors
/// When they do not fit.
pub fn write(memory: &GuestMemory, processors: u8) -> Result<(), AcpiError> {
    let mut place = Place {
        memory,
        next: layout::ACPI_TABLES,
    };
    let dsdt = place.put(&dsdt::dsdt())?;
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    for table in [
        bytes(&tables::fadt(dsdt)),
        bytes(&tables::madt(processors)),
        bytes(&tables::mcfg()),
    ] {
        xsdt.add_entry(place.put(&table)?);
    }
    let xsdt = place.put(&bytes(&xsdt))?;
    let mut root = Place {
        memory,
        next: layout::RSDP,
    };
    root.put(&bytes(&Rsdp::new(OEM, xsdt)))?;
    Ok(())
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Where the next table goes.
struct Place<'a> {
    memory: &'a GuestMemory,
    next: u64,
}

impl Place<'_> {
    /// Writes a table; its address.
    fn put(&mut self, table: &[u8]) -> Result<u64, AcpiError> {
        let address = self.next;
        let end = address + table.len() as u64;
        if end > layout::RESET_VECTOR {
            return Err(AcpiError::Size);
        }
        self.memory
            .mapped()
            .write_slice(table, GuestAddress(address))
            .map_err(AcpiError::Write)?;
        self.next = end.next_multiple_of(ALIGNMENT);
        Ok(address)
    }
}

#[cfg(test)]
mod tests;
