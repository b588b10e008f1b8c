//! The tables without code: what is where.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;

use super::{OEM, OEM_REVISION, OEM_TABLE, RESET_VALUE};
use crate::layout::{self, port};

/// "VGA not present" and "PCIe ASPM controls not supported" (ACPI 6.4, table 5.10). No bit for a
/// keyboard controller: kernels do not look for one.
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 4;

/// Power management: registers for sleep and reset, and no other hardware.
pub(super) fn fadt(dsdt: u64) -> FADT {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION);
    fadt.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    fadt.reset_reg = port_register(port::ACPI_RESET);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = port_register(port::ACPI_SLEEP_CONTROL);
    fadt.sleep_status_reg = port_register(port::ACPI_SLEEP_STATUS);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(OEM_TABLE).into();
    fadt.dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        // No fixed buttons: ours is a device of the DSDT.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .finalize()
}

/// Interrupt controllers: one local APIC for each processor, one I/O APIC.
pub(super) fn madt(processors: u8) -> MADT {
    let local = LocalInterruptController::Address(address(layout::LOCAL_APIC));
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, local);
    for id in 0..processors {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, address(layout::IO_APIC), 0));
    madt
}

/// PCI configuration space of the only bus.
pub(super) fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(layout::PCI_ECAM, 0, 0, 0);
    mcfg
}

fn port_register(number: u16) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        number.into(),
    )
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "both controllers lie below 4 GiB, which a test checks"
)]
fn address(controller: u64) -> u32 {
    controller as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controllers_lie_below_4_gib() {
        for controller in [layout::LOCAL_APIC, layout::IO_APIC] {
            assert_eq!(u64::from(address(controller)), controller);
        }
    }
}
