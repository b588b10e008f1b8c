//! Reads a kernel and puts it where it wants to be.

use std::fs::File;
use std::os::unix::fs::FileExt;

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, KernelLoader, KernelLoaderResult, PvhBootCapability};
use vm_memory::GuestAddress;

use super::{BootConfig, BootError, NamedFile, Protocol};
use crate::layout;
use crate::memory::{ByteSize, GuestMemory};

/// What a kernel file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Linux's own format: a small loader and the compressed kernel.
    BzImage,
    /// 64-bit ELF: the kernel itself, `vmlinux`.
    Elf,
}

/// Where `HdrS` lies in a bzImage (boot.rst, "The real-mode kernel header").
const HEADER_MAGIC_OFFSET: usize = 0x202;
/// First protocol version with `xloadflags`.
const VERSION_XLOADFLAGS: u16 = 0x20c;
/// The kernel has a 64-bit entry 512 bytes behind its start.
const XLF_KERNEL_64: u16 = 1;
const ENTRY_64_OFFSET: u64 = 0x200;
/// Linux's COMMAND_LINE_SIZE on x86, which an ELF file does not tell.
const ELF_COMMAND_LINE_MAX: usize = 2047;
/// `EM_X86_64` and where ELF says it: class at 4, machine at 18.
const MACHINE_X86_64: [u8; 2] = [62, 0];
const CLASS_64: u8 = 2;

/// A kernel in the guest's memory.
#[derive(Debug)]
pub(super) struct Kernel {
    /// What the file said of itself; bzImage only.
    pub(super) header: Option<setup_header>,
    /// End of the memory that it needs before it can manage its own.
    pub(super) end: u64,
    start: u64,
    pvh: Option<u64>,
}

impl Kernel {
    /// What was asked for, else the best that the kernel has.
    pub(super) fn protocol(&self, config: &BootConfig) -> Result<Protocol, BootError> {
        match (config.protocol, self.pvh) {
            (Some(Protocol::Pvh), None) => Err(BootError::NoPvh(config.kernel.path.clone())),
            (Some(protocol), _) => Ok(protocol),
            (None, Some(_)) => Ok(Protocol::Pvh),
            (None, None) => Ok(Protocol::Linux),
        }
    }

    pub(super) fn entry(&self, protocol: Protocol) -> u64 {
        match (protocol, self.pvh, &self.header) {
            (Protocol::Pvh, Some(entry), _) => entry,
            (_, _, Some(_)) => self.start + ENTRY_64_OFFSET,
            (_, _, None) => self.start,
        }
    }

    /// The address at which an initramfs must end at the latest.
    pub(super) fn initramfs_end(&self) -> u64 {
        let last = |header: &setup_header| u64::from(header.initrd_addr_max);
        self.header.as_ref().map_or(layout::HOLE, |it| last(it) + 1)
    }

    pub(super) fn command_line_max(&self) -> usize {
        let most = |header: &setup_header| usize::try_from(header.cmdline_size).unwrap_or(0);
        self.header.as_ref().map_or(ELF_COMMAND_LINE_MAX, most)
    }
}

pub(super) fn load(named: &NamedFile, memory: &GuestMemory) -> Result<Kernel, BootError> {
    let kernel = match format(named)? {
        Format::BzImage => load_bzimage(named, memory)?,
        Format::Elf => load_elf(named, memory)?,
    };
    if kernel.end > memory.low_end() {
        return Err(BootError::KernelFit {
            path: named.path.clone(),
            needed: ByteSize(kernel.end),
        });
    }
    Ok(kernel)
}

fn format(named: &NamedFile) -> Result<Format, BootError> {
    let mut head = [0; HEADER_MAGIC_OFFSET + 4];
    let read = named.file.read_exact_at(&mut head, 0);
    match read {
        Err(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
            return Err(BootError::Read {
                path: named.path.clone(),
                source,
            });
        }
        _ => {}
    }
    if head.starts_with(b"\x7fELF") && head[4] == CLASS_64 && head[18..20] == MACHINE_X86_64 {
        Ok(Format::Elf)
    } else if head[HEADER_MAGIC_OFFSET..] == *b"HdrS" {
        Ok(Format::BzImage)
    } else {
        Err(BootError::NotKernel(named.path.clone()))
    }
}

fn load_bzimage(named: &NamedFile, memory: &GuestMemory) -> Result<Kernel, BootError> {
    let mut file: &File = &named.file;
    let high = Some(GuestAddress(layout::HIGH_MEMORY));
    let loaded = BzImage::load(memory.mapped(), None, &mut file, high)
        .map_err(|source| load_error(named, source, memory))?;
    let header = loaded
        .setup_header
        .ok_or_else(|| BootError::NotKernel(named.path.clone()))?;
    if header.version < VERSION_XLOADFLAGS || header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(BootError::No64BitEntry(named.path.clone()));
    }
    // The kernel unpacks itself to `pref_address` and needs `init_size` there.
    let unpacked = header.pref_address.saturating_add(header.init_size.into());
    Ok(Kernel {
        header: Some(header),
        end: unpacked.max(loaded.kernel_end),
        start: loaded.kernel_load.0,
        pvh: None,
    })
}

fn load_elf(named: &NamedFile, memory: &GuestMemory) -> Result<Kernel, BootError> {
    let mut file: &File = &named.file;
    let high = Some(GuestAddress(layout::HIGH_MEMORY));
    let loaded: KernelLoaderResult = Elf::load(memory.mapped(), None, &mut file, high)
        .map_err(|source| load_error(named, source, memory))?;
    Ok(Kernel {
        header: None,
        end: loaded.kernel_end,
        start: loaded.kernel_load.0,
        pvh: match loaded.pvh_boot_cap {
            PvhBootCapability::PvhEntryPresent(entry) => Some(entry.0),
            _ => None,
        },
    })
}

/// The loader does not tell a short file from short memory; the file's size does.
fn load_error(
    named: &NamedFile,
    source: linux_loader::loader::Error,
    memory: &GuestMemory,
) -> BootError {
    let size = named.file.metadata().map_or(0, |metadata| metadata.len());
    let needed = size.saturating_add(layout::HIGH_MEMORY);
    let path = named.path.clone();
    if needed > memory.low_end() {
        let needed = ByteSize(needed);
        return BootError::KernelFit { path, needed };
    }
    BootError::Load { path, source }
}
