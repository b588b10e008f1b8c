//! The guest's memory: one shared memory file, mapped here and by every device daemon.

use std::fs::File;
use std::io;
use std::ops;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use thiserror::Error;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap,
    GuestMemoryRegion, GuestRegionMmap, region::GuestRegionCollectionError,
};

mod dirty_log;
mod file;

use crate::layout;

pub use byte_size::{ByteSize, ByteSizeError};
pub use dirty_log::DirtyLog;

/// Bytes of an explicit huge page.
const HUGE_PAGE: u64 = 2 << 20;
/// Less holds no kernel.
const LEAST: u64 = 32 << 20;
/// More than any host of ours has; keeps sums of addresses far from overflow.
const MOST: u64 = 1 << 44;

/// How much memory, and of which kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes.
    pub size: ByteSize,
    /// Taken from the host's reserved 2 MiB pages.
    pub hugepages: bool,
    /// Every page is there before the guest starts.
    pub prefault: bool,
}

/// Why there is no memory for the guest.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// A size that no guest can have.
    #[error("--memory {0}: a guest has between {least} and {most}", least = ByteSize(LEAST), most = ByteSize(MOST))]
    Size(ByteSize),
    /// A size that is not a number of pages.
    #[error("--memory {size} is not a multiple of {page}", page = ByteSize(*page))]
    Pages {
        /// What was asked for.
        size: ByteSize,
        /// Bytes of a page.
        page: u64,
    },
    /// The file could not be made.
    #[error("cannot make a memory file for --memory {size}")]
    File {
        /// What was asked for.
        size: ByteSize,
        /// The system's reason.
        source: rustix::io::Errno,
    },
    /// The host has too few huge pages.
    #[error(
        "--hugepages: the host has no {size} of free huge pages; raise /proc/sys/vm/nr_hugepages"
    )]
    HugePages {
        /// What was asked for.
        size: ByteSize,
        /// The system's reason.
        source: rustix::io::Errno,
    },
    /// The file could not be mapped.
    #[error("cannot map --memory {size}")]
    Map {
        /// What was asked for.
        size: ByteSize,
        /// Why.
        source: MmapRegionError,
    },
    /// The mappings do not make a memory.
    #[error("the memory's regions do not fit together")]
    Regions(#[source] GuestRegionCollectionError),
    /// What was written could not be thrown away.
    #[error("cannot clear the guest's memory")]
    Clear(#[source] rustix::io::Errno),
}

/// The guest's memory. Cloning shares it.
#[derive(Debug, Clone)]
pub struct GuestMemory {
    mapped: GuestMemoryMmap,
    file: Arc<File>,
    size: u64,
    hugepages: bool,
    /// While somebody copies memory that is used.
    log: Arc<RwLock<Option<Arc<DirtyLog>>>>,
}

impl GuestMemory {
    /// Makes the memory file and maps it: below the hole, and what does not fit there above it.
    ///
    /// # Errors
    /// When the size is none for a guest, or the host does not have it.
    pub fn new(config: MemoryConfig) -> Result<Self, MemoryError> {
        check(config)?;
        let file = Arc::new(memory_file(config)?);
        let regions = ranges(config.size.0)
            .map(|range| map(&file, range, config))
            .collect::<Result<Vec<_>, _>>()?;
        let mapped = GuestMemoryMmap::from_regions(regions).map_err(MemoryError::Regions)?;
        Ok(Self {
            mapped,
            file,
            size: config.size.0,
            hugepages: config.hugepages,
            log: Arc::default(),
        })
    }

    /// As everybody else wants to see it.
    #[must_use]
    pub fn mapped(&self) -> &GuestMemoryMmap {
        &self.mapped
    }

    /// Bytes of memory, without the hole.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// End of the memory below the hole.
    #[must_use]
    pub fn low_end(&self) -> u64 {
        self.size.min(layout::HOLE)
    }

    /// End of the memory above the hole; its start if there is none.
    #[must_use]
    pub fn high_end(&self) -> u64 {
        layout::HOLE_END + self.size.saturating_sub(layout::HOLE)
    }

    /// Where an address of the guest's is in our own address space; `None` where there is no memory.
    #[must_use]
    pub fn user_address(&self, guest: u64) -> Option<u64> {
        let region = self.mapped.find_region(GuestAddress(guest))?;
        let start = region.as_ptr().expose_provenance() as u64;
        Some(start + (guest - region.start_addr().0))
    }

    /// How many entries the device has put into a split ring's used ring, modulo 2^16 (virtio 1.2, 2.7.8).
    #[must_use]
    pub fn used_index(&self, used_ring: u64) -> Option<u16> {
        const INDEX: u64 = 2;
        let at = GuestAddress(used_ring.checked_add(INDEX)?);
        self.mapped.load(at, Ordering::Acquire).ok()
    }

    /// From now on whoever in this process writes for a device marks it in the log that this makes; daemons
    /// and KVM must be told.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn begin_log(&self) -> io::Result<Arc<DirtyLog>> {
        let log = Arc::new(DirtyLog::new(self.high_end())?);
        *self.log.write().unwrap_or_else(PoisonError::into_inner) = Some(log.clone());
        Ok(log)
    }

    /// Nobody needs the log any more.
    pub fn end_log(&self) {
        *self.log.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The log, while there is one.
    #[must_use]
    pub fn log(&self) -> Option<Arc<DirtyLog>> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        log.clone()
    }

    /// Somebody in this process wrote there, a moment ago.
    pub fn mark_dirty(&self, address: u64, len: u64) {
        if let Some(log) = self.log() {
            log.mark(address, len);
        }
    }

    /// Writes for a device.
    ///
    /// # Errors
    /// Where there is no memory.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), GuestMemoryError> {
        let written = self.mapped.write_slice(bytes, GuestAddress(address));
        // A part of it may be there even so.
        self.mark_dirty(address, bytes.len() as u64);
        written
    }

    /// Where memory is in the guest's address space.
    pub(crate) fn parts(&self) -> impl Iterator<Item = ops::Range<u64>> + use<> {
        ranges(self.size).map(|range| range.address..range.address + range.len)
    }

    /// Makes all of it zero, as it was at the start. Nobody may be using it.
    ///
    /// # Errors
    /// When the file system refuses, which a memory file does not, or the host's huge pages are another's now.
    pub fn clear(&self) -> Result<(), MemoryError> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&*self.file, flags, 0, self.size).map_err(MemoryError::Clear)?;
        if self.hugepages {
            take_huge_pages(&self.file, ByteSize(self.size))?;
        }
        Ok(())
    }
}

/// A part of the address space and of the file.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    address: u64,
    offset: u64,
    len: u64,
}

fn ranges(size: u64) -> impl Iterator<Item = Range> {
    let low = size.min(layout::HOLE);
    let below = Range {
        address: 0,
        offset: 0,
        len: low,
    };
    let above = Range {
        address: layout::HOLE_END,
        offset: low,
        len: size - low,
    };
    [below, above].into_iter().filter(|range| range.len > 0)
}

fn check(config: MemoryConfig) -> Result<(), MemoryError> {
    let size = config.size;
    if !(LEAST..=MOST).contains(&size.0) {
        return Err(MemoryError::Size(size));
    }
    let page = if config.hugepages {
        HUGE_PAGE
    } else {
        layout::PAGE
    };
    if !size.0.is_multiple_of(page) {
        return Err(MemoryError::Pages { size, page });
    }
    Ok(())
}

/// The seals promise everyone who maps the file that it keeps its size.
fn memory_file(config: MemoryConfig) -> Result<File, MemoryError> {
    let size = config.size;
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if config.hugepages {
        flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    }
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let file = rustix::fs::memfd_create("guest-memory", flags)
        .and_then(|fd| {
            rustix::fs::ftruncate(&fd, size.0)?;
            rustix::fs::fcntl_add_seals(&fd, seals)?;
            Ok(File::from(fd))
        })
        .map_err(|source| MemoryError::File { size, source })?;
    if config.hugepages {
        take_huge_pages(&file, size)?;
    }
    Ok(file)
}

/// One that is missing later would be a SIGBUS here or in a daemon.
fn take_huge_pages(file: &File, size: ByteSize) -> Result<(), MemoryError> {
    rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size.0)
        .map_err(|source| MemoryError::HugePages { size, source })
}

fn map(
    file: &Arc<File>,
    range: Range,
    config: MemoryConfig,
) -> Result<GuestRegionMmap, MemoryError> {
    let failed = |source| MemoryError::Map {
        size: config.size,
        source,
    };
    let populate = if config.prefault {
        libc::MAP_POPULATE
    } else {
        0
    };
    let len = usize::try_from(range.len).map_err(|_| MemoryError::Size(config.size))?;
    let mapping = MmapRegionBuilder::new(len)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE | populate)
        .with_file_offset(FileOffset::from_arc(file.clone(), range.offset))
        .with_hugetlbfs(config.hugepages)
        .build()
        .map_err(failed)?;
    GuestRegionMmap::new(mapping, GuestAddress(range.address)).ok_or(MemoryError::Size(config.size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn config(size: u64) -> MemoryConfig {
        MemoryConfig {
            size: ByteSize(size),
            hugepages: false,
            prefault: false,
        }
    }

    #[test]
    fn small_memory_is_one_range_below_the_hole() {
        let memory = GuestMemory::new(config(64 * MIB)).unwrap();
        assert_eq!(memory.mapped().num_regions(), 1);
        assert_eq!(memory.low_end(), 64 * MIB);
        assert_eq!(memory.high_end(), layout::HOLE_END);
        assert!(!memory.mapped().address_in_range(GuestAddress(64 * MIB)));
    }

    #[test]
    fn large_memory_goes_on_above_the_hole() {
        let memory = GuestMemory::new(config(4 * GIB)).unwrap();
        let mapped = memory.mapped();
        assert_eq!(
            (memory.low_end(), memory.high_end()),
            (layout::HOLE, 5 * GIB)
        );
        assert!(mapped.address_in_range(GuestAddress(layout::HOLE - 1)));
        assert!(!mapped.address_in_range(GuestAddress(layout::HOLE)));
        assert!(!mapped.address_in_range(GuestAddress(layout::HOLE_END - 1)));
        assert!(mapped.address_in_range(GuestAddress(5 * GIB - 1)));
        assert!(!mapped.address_in_range(GuestAddress(5 * GIB)));
        let offsets: Vec<u64> = ranges(4 * GIB).map(|range| range.offset).collect();
        assert_eq!(offsets, [0, layout::HOLE]);
    }

    #[test]
    fn the_file_is_the_memory_and_keeps_its_size() {
        let memory = GuestMemory::new(config(32 * MIB)).unwrap();
        memory
            .mapped()
            .write_obj(0x1234_5678_u32, GuestAddress(MIB))
            .unwrap();
        let mut read = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&*memory.file, &mut read, MIB).unwrap();
        assert_eq!(u32::from_le_bytes(read), 0x1234_5678);
        assert!(memory.file.set_len(MIB).is_err());
    }

    #[test]
    fn cleared_memory_is_zero() {
        let memory = GuestMemory::new(config(32 * MIB)).unwrap();
        let address = GuestAddress(5 * MIB);
        memory.mapped().write_obj(u64::MAX, address).unwrap();
        memory.clear().unwrap();
        assert_eq!(memory.mapped().read_obj::<u64>(address).unwrap(), 0);
    }

    #[test]
    fn prefaulted_memory_is_there() {
        let memory = GuestMemory::new(MemoryConfig {
            prefault: true,
            ..config(32 * MIB)
        })
        .unwrap();
        let blocks = rustix::fs::fstat(&*memory.file).unwrap().st_blocks;
        assert_eq!(blocks * 512, 32 << 20);
    }

    #[test]
    fn sizes_no_guest_can_have_are_refused() {
        let message = |config| GuestMemory::new(config).unwrap_err().to_string();
        assert_eq!(
            message(config(MIB)),
            "--memory 1M: a guest has between 32M and 16T"
        );
        assert_eq!(
            message(config(32 * MIB + 5)),
            "--memory 33554437 is not a multiple of 4K"
        );
        let huge = MemoryConfig {
            hugepages: true,
            ..config(33 * MIB)
        };
        assert_eq!(message(huge), "--memory 33M is not a multiple of 2M");
    }
}
