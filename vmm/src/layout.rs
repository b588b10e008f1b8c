//! Where everything is in the guest's physical address space: the one place that says so.
//!
//! The picture is in `docs/vmm.md`.

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// PVH start information, memory map and module list (boot/pvh.rs).
pub const PVH_START_INFO: u64 = 0x6000;
/// Linux's boot parameters, the "zero page" (Linux `Documentation/arch/x86/boot.rst`).
pub const ZERO_PAGE: u64 = 0x7000;
/// Global descriptor table of the first processor.
pub const GDT: u64 = 0x8000;
/// Page tables of the first processor: PML4, PDPT, and one page directory for each GiB.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel's command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Bytes of the command line with its terminating zero. Linux takes 2048; the rest is for others.
pub const COMMAND_LINE_MAX: usize = 0x1_0000;
/// End of the memory below 1 MiB that the guest may use freely; above lay video memory and ROMs.
pub const LOW_MEMORY_END: u64 = 0xa_0000;
/// ACPI root pointer, at the start of the area that a PC's BIOS occupied: kernels that were not told
/// its address look for it here.
pub const RSDP: u64 = 0xe_0000;
/// The other ACPI tables.
pub const ACPI_TABLES: u64 = 0xe_0040;
/// Where a PC's processor starts after a reset, f000:fff0: code of ours that resets the machine.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// Start of the memory where kernels are loaded.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// Memory ends here at the latest and goes on at [`HOLE_END`].
pub const HOLE: u64 = 0xc000_0000;
/// Devices' memory: where PCI devices' base addresses may point.
pub const PCI_WINDOW: u64 = HOLE;
/// Bytes of [`PCI_WINDOW`].
pub const PCI_WINDOW_SIZE: u64 = 0x2000_0000;
/// Configuration space of PCI bus 0, mapped (PCI Express base specification, "ECAM").
pub const PCI_ECAM: u64 = 0xe000_0000;
/// Bytes of one bus: 32 devices of 8 functions of 4 KiB.
pub const PCI_ECAM_SIZE: u64 = 0x10_0000;
/// I/O APIC, in the kernel.
pub const IO_APIC: u64 = 0xfec0_0000;
/// Local APIC of every processor, in the kernel.
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// One page that KVM uses on Intel processors to run real mode.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that KVM uses on Intel processors to run real mode.
pub const KVM_TSS: u64 = 0xfffb_d000;
/// Memory beyond the hole goes on here.
pub const HOLE_END: u64 = 0x1_0000_0000;

/// Interrupt lines of the I/O APIC.
pub const IO_APIC_PINS: u32 = 24;
/// First serial port.
pub const SERIAL_IRQ: u32 = 4;
/// Events for the guest's ACPI: the power button.
pub const ACPI_EVENT_IRQ: u32 = 9;
/// First interrupt number for messages (MSI-X); those before are the I/O APIC's pins.
pub const FIRST_MESSAGE_GSI: u32 = IO_APIC_PINS;
/// Interrupt numbers end here (KVM_MAX_IRQ_ROUTES of Linux on x86).
pub const MESSAGE_GSI_END: u32 = 4096;

/// I/O ports.
pub mod port {
    /// Keyboard controller: only its reset command.
    pub const I8042_DATA: u16 = 0x60;
    /// Command and status register of the keyboard controller.
    pub const I8042_COMMAND: u16 = 0x64;
    /// Index register of the real-time clock.
    pub const RTC_INDEX: u16 = 0x70;
    /// Data register of the real-time clock.
    pub const RTC_DATA: u16 = 0x71;
    /// First of the eight registers of the first serial port.
    pub const SERIAL: u16 = 0x3f8;
    /// Number of registers of a serial port.
    pub const SERIAL_LEN: u16 = 8;
    /// ACPI sleep control register (ACPI 6.4, 4.8.3.7).
    pub const ACPI_SLEEP_CONTROL: u16 = 0x600;
    /// ACPI sleep status register.
    pub const ACPI_SLEEP_STATUS: u16 = 0x601;
    /// ACPI reset register (ACPI 6.4, 4.8.3.6).
    pub const ACPI_RESET: u16 = 0x602;
    /// Events that the guest's ACPI code reads and thereby clears, 32 bits.
    pub const ACPI_EVENTS: u16 = 0x604;
    /// Devices that came, a bit for each place on the PCI bus; cleared by reading, 32 bits.
    pub const PCI_CAME: u16 = 0x608;
    /// Devices that shall go, the same way.
    pub const PCI_SHALL_GO: u16 = 0x60c;
    /// Lets go of the devices whose bits are written, 32 bits.
    pub const PCI_EJECT: u16 = 0x610;
    /// PCI configuration address register (PCI local bus specification, 3.2.2.3.2).
    pub const PCI_CONFIG_ADDRESS: u16 = 0xcf8;
    /// PCI configuration data register, four ports.
    pub const PCI_CONFIG_DATA: u16 = 0xcfc;
}
