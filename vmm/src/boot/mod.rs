//! What a guest finds in its memory when its first processor starts: the kernel, its initramfs and
//! command line, and what the boot protocol tells it.
//!
//! Two protocols: Linux's 64-bit one (`Documentation/arch/x86/boot.rst`, section "64-bit boot
//! protocol") for bzImage and ELF, and PVH (Xen `docs/misc/pvh.pandoc`) for ELF kernels that offer it.

mod command_line;
mod error;
mod initramfs;
mod kernel;
mod memory_map;
mod page_tables;
mod pvh;
mod reset_vector;
mod segments;
mod zero_page;

use std::fs::File;
use std::path::PathBuf;

pub use command_line::check as check_command_line;
pub use error::BootError;
pub use kernel::Format;
pub use segments::Segment;

use crate::layout;
use crate::memory::GuestMemory;
use memory_map::MemoryMap;

/// A file with the name that messages call it by. It stays open: a reset loads it again.
#[derive(Debug)]
pub struct NamedFile {
    /// What the user called it.
    pub path: PathBuf,
    /// The open file.
    pub file: File,
}

impl NamedFile {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// When it is missing or not permitted.
    pub fn open(path: PathBuf) -> Result<Self, BootError> {
        match File::open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(BootError::Open { path, source }),
        }
    }
}

/// How the kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// 64-bit mode with paging, the zero page's address in RSI.
    Linux,
    /// 32-bit protected mode without paging, the start information's address in EBX.
    Pvh,
}

/// What to boot.
#[derive(Debug)]
pub struct BootConfig {
    /// bzImage or ELF.
    pub kernel: NamedFile,
    /// First root file system, a cpio archive.
    pub initramfs: Option<NamedFile>,
    /// For the kernel; checked by [`check_command_line`].
    pub command_line: String,
    /// `None` is PVH where the kernel offers it.
    pub protocol: Option<Protocol>,
}

/// Where and how the first processor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its first instruction's address.
    pub address: u64,
    /// The state that the kernel expects.
    pub protocol: Protocol,
}

impl Entry {
    /// Segments of the first processor: code, then data.
    #[must_use]
    pub fn segments(self) -> (Segment, Segment) {
        match self.protocol {
            Protocol::Linux => (segments::CODE_64, segments::DATA),
            Protocol::Pvh => (segments::CODE_32, segments::DATA),
        }
    }

    /// The register that tells the kernel where its information is: RSI for Linux, RBX for PVH.
    #[must_use]
    pub fn information(self) -> u64 {
        match self.protocol {
            Protocol::Linux => layout::ZERO_PAGE,
            Protocol::Pvh => layout::PVH_START_INFO,
        }
    }
}

/// Bytes of the descriptor table at [`layout::GDT`], less one, as GDTR wants it.
pub const GDT_LIMIT: u16 = segments::GDT_LIMIT;

/// Loads everything into zeroed memory.
///
/// # Errors
/// When a file cannot be read, is no kernel, or does not fit.
pub fn load(config: &BootConfig, memory: &GuestMemory) -> Result<Entry, BootError> {
    let kernel = kernel::load(&config.kernel, memory)?;
    let protocol = kernel.protocol(config)?;
    let address = kernel.entry(protocol);
    if address >= memory.low_end() {
        let path = config.kernel.path.clone();
        return Err(BootError::Entry { path, address });
    }
    let initramfs = config
        .initramfs
        .as_ref()
        .map(|file| initramfs::load(file, memory, &kernel))
        .transpose()?;
    command_line::write(&config.command_line, memory, &kernel)?;
    reset_vector::write(memory)?;
    let map = MemoryMap::of(memory);
    match protocol {
        Protocol::Linux => {
            segments::write_table(memory)?;
            page_tables::write(memory)?;
            zero_page::write(memory, &kernel, initramfs, &map)?;
        }
        Protocol::Pvh => pvh::write(memory, initramfs, &map)?,
    }
    Ok(Entry { address, protocol })
}

#[cfg(test)]
mod tests;
