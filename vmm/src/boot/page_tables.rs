//! Page tables of the first processor: the first 4 GiB, each address mapped to itself in 2 MiB pages
//! (Intel SDM volume 3, 4.5; boot.rst wants kernel, zero page and command line mapped so).

use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use crate::layout::{self, PAGE};
use crate::memory::GuestMemory;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
/// The entry maps a page of 2 MiB instead of naming a table.
const LARGE: u64 = 1 << 7;

const ENTRIES: u64 = 512;
const LARGE_PAGE: u64 = 2 << 20;
const GIBIBYTES: u64 = 4;

pub(super) fn write(memory: &GuestMemory) -> Result<(), BootError> {
    let table = PRESENT | WRITABLE;
    let (pml4, pdpt) = (layout::PAGE_TABLES, layout::PAGE_TABLES + PAGE);
    let directories = pdpt + PAGE;
    write_table(memory, pml4, [pdpt | table])?;
    write_table(
        memory,
        pdpt,
        (0..GIBIBYTES).map(|gib| (directories + gib * PAGE) | table),
    )?;
    let pages = (0..GIBIBYTES * ENTRIES).map(|page| (page * LARGE_PAGE) | table | LARGE);
    write_table(memory, directories, pages)
}

fn write_table(
    memory: &GuestMemory,
    address: u64,
    entries: impl IntoIterator<Item = u64>,
) -> Result<(), BootError> {
    let bytes: Vec<u8> = entries.into_iter().flat_map(u64::to_le_bytes).collect();
    memory
        .mapped()
        .write_slice(&bytes, GuestAddress(address))
        .map_err(|_| BootError::Write("page tables"))
}
