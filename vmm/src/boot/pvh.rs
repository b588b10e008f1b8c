//! PVH start information: `hvm_start_info` version 1 with its module list and memory map (Xen
//! `public/arch-x86/hvm/start_info.h`).

use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use super::initramfs::Initramfs;
use super::memory_map::MemoryMap;
use crate::layout;
use crate::memory::GuestMemory;

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
/// Module list and memory map lie in the same page, behind the information.
const MODULES: u64 = layout::PVH_START_INFO + 0x40;
const MEMORY_MAP: u64 = layout::PVH_START_INFO + 0x80;

pub(super) fn write(
    memory: &GuestMemory,
    initramfs: Option<Initramfs>,
    map: &MemoryMap,
) -> Result<(), BootError> {
    let entries = u32::try_from(map.0.len()).unwrap_or(0);
    let mut information = Vec::new();
    information.extend(MAGIC.to_le_bytes());
    information.extend(VERSION.to_le_bytes());
    information.extend(0_u32.to_le_bytes());
    information.extend(u32::from(initramfs.is_some()).to_le_bytes());
    for address in [MODULES, layout::COMMAND_LINE, layout::RSDP, MEMORY_MAP] {
        information.extend(address.to_le_bytes());
    }
    information.extend(entries.to_le_bytes());
    information.extend(0_u32.to_le_bytes());
    put(memory, layout::PVH_START_INFO, &information)?;
    put(memory, MODULES, &module_list(initramfs))?;
    put(memory, MEMORY_MAP, &memory_map(map))
}

/// One module without a command line of its own, or none.
fn module_list(initramfs: Option<Initramfs>) -> Vec<u8> {
    let fields = initramfs.map_or(vec![], |it| vec![it.address, it.size, 0, 0]);
    fields.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn memory_map(map: &MemoryMap) -> Vec<u8> {
    let entry = |range: &super::memory_map::Range| {
        let mut bytes = Vec::new();
        bytes.extend(range.address.to_le_bytes());
        bytes.extend(range.size.to_le_bytes());
        bytes.extend((range.kind as u32).to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes
    };
    map.0.iter().flat_map(entry).collect()
}

fn put(memory: &GuestMemory, address: u64, bytes: &[u8]) -> Result<(), BootError> {
    memory
        .mapped()
        .write_slice(bytes, GuestAddress(address))
        .map_err(|_| BootError::Write("the PVH start information"))
}
