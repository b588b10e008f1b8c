//! Linux's boot parameters, the "zero page" (`Documentation/arch/x86/zero-page.rst`).

use linux_loader::loader::bootparam::setup_header;
use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::BootError;
use super::initramfs::Initramfs;
use super::kernel::Kernel;
use super::memory_map::MemoryMap;
use crate::layout;
use crate::memory::GuestMemory;

/// Offsets in the page.
mod offset {
    pub(super) const ACPI_RSDP: usize = 0x70;
    pub(super) const E820_ENTRIES: usize = 0x1e8;
    pub(super) const SETUP_HEADER: usize = 0x1f1;
    pub(super) const E820_TABLE: usize = 0x2d0;
}

/// Bytes of an entry of the memory map: address, size, type.
const E820_ENTRY: usize = 20;
/// "Undefined" boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// `boot_flag` and `header` of every kernel since Linux 2.0.
const BOOT_FLAG: u16 = 0xaa55;
const HEADER: u32 = 0x5372_6448;
/// What an ELF kernel's own header would say: loaded high, aligned to 2 MiB.
const LOADED_HIGH: u8 = 1;
const KERNEL_ALIGNMENT: u32 = 2 << 20;
const VERSION: u16 = 0x20f;

pub(super) fn write(
    memory: &GuestMemory,
    kernel: &Kernel,
    initramfs: Option<Initramfs>,
    map: &MemoryMap,
) -> Result<(), BootError> {
    let mut page = [0_u8; 4096];
    put(&mut page, offset::ACPI_RSDP, &layout::RSDP.to_le_bytes());
    let header = header(kernel, initramfs)?;
    put(&mut page, offset::SETUP_HEADER, header.as_slice());
    page[offset::E820_ENTRIES] = u8::try_from(map.0.len()).unwrap_or(0);
    for (index, range) in map.0.iter().enumerate() {
        let at = offset::E820_TABLE + index * E820_ENTRY;
        put(&mut page, at, &range.address.to_le_bytes());
        put(&mut page, at + 8, &range.size.to_le_bytes());
        put(&mut page, at + 16, &(range.kind as u32).to_le_bytes());
    }
    memory
        .mapped()
        .write_slice(&page, GuestAddress(layout::ZERO_PAGE))
        .map_err(|_| BootError::Write("the zero page"))
}

fn header(kernel: &Kernel, initramfs: Option<Initramfs>) -> Result<setup_header, BootError> {
    let below_4g = |value: u64| u32::try_from(value).map_err(|_| BootError::Write("the zero page"));
    let mut header = kernel.header.unwrap_or(setup_header {
        boot_flag: BOOT_FLAG,
        header: HEADER,
        version: VERSION,
        loadflags: LOADED_HIGH,
        kernel_alignment: KERNEL_ALIGNMENT,
        ..setup_header::default()
    });
    header.type_of_loader = LOADER_UNDEFINED;
    header.cmd_line_ptr = below_4g(layout::COMMAND_LINE)?;
    if let Some(initramfs) = initramfs {
        header.ramdisk_image = below_4g(initramfs.address)?;
        header.ramdisk_size = below_4g(initramfs.size)?;
    }
    Ok(header)
}

fn put(page: &mut [u8], offset: usize, bytes: &[u8]) {
    page[offset..offset + bytes.len()].copy_from_slice(bytes);
}
