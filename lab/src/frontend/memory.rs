//! Guest memory in a memfd, and buffers in it.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::{
    Address, AtomicAccess, Bytes, FileOffset, GuestMemoryBackend, GuestMemoryMmap,
    GuestMemoryRegion, VolatileSlice,
};

pub use vm_memory::GuestAddress;

use super::{Error, Result};

/// Buffers are never closer than this, so that neighbours do not share a cache line.
const MIN_ALIGN: usize = 64;
const CHUNK: usize = 64 << 10;

/// Memory that is shared with the daemon. Clones are handles to the same memory.
#[derive(Clone)]
pub struct GuestMemory {
    shared: Arc<Shared>,
}

struct Shared {
    map: GuestMemoryMmap,
    space: Mutex<Space>,
}

/// What is free: the rest of each region, and buffers that were given back.
struct Space {
    /// First unused and first out-of-bounds address of each region.
    rest: Vec<(u64, u64)>,
    returned: HashMap<(usize, usize), Vec<u64>>,
}

impl GuestMemory {
    /// One region from guest physical address zero.
    ///
    /// # Errors
    /// When the memfd cannot be made or mapped.
    pub fn with_size(len: usize) -> Result<Self> {
        Self::new(&[(GuestAddress(0), len)])
    }

    /// Regions `(start, length)`, one after the other in a single memfd, so that all but the
    /// first have an mmap offset as under QEMU.
    ///
    /// # Errors
    /// When the memfd cannot be made or mapped, or regions overlap.
    pub fn new(regions: &[(GuestAddress, usize)]) -> Result<Self> {
        let file = memfd(regions.iter().map(|&(_, len)| len as u64).sum())?;
        let mut offset = 0;
        let mut ranges = Vec::new();
        for &(start, len) in regions {
            ranges.push((
                start,
                len,
                Some(FileOffset::from_arc(Arc::clone(&file), offset)),
            ));
            offset += len as u64;
        }
        let map = GuestMemoryMmap::from_ranges_with_files(&ranges)
            .map_err(|error| Error::MakeMemory(std::io::Error::other(error)))?;
        let rest = regions
            .iter()
            .map(|&(start, len)| (start.0, start.0 + len as u64))
            .collect();
        let space = Mutex::new(Space {
            rest,
            returned: HashMap::new(),
        });
        Ok(Self {
            shared: Arc::new(Shared { map, space }),
        })
    }

    /// The regions in the form that SET_MEM_TABLE and ADD_MEM_REG take.
    ///
    /// # Errors
    /// Never for memory made here; vm-memory's check on the file is passed on.
    pub fn regions(&self) -> Result<Vec<VhostUserMemoryRegionInfo>> {
        let region = |region| {
            VhostUserMemoryRegionInfo::from_guest_region(region).map_err(|source| Error::Request {
                request: "SET_MEM_TABLE",
                source,
            })
        };
        self.shared.map.iter().map(region).collect()
    }

    /// The descriptor number of the memfd that holds all regions.
    #[must_use]
    pub fn memfd(&self) -> Option<i32> {
        let region = self.shared.map.iter().next()?;
        Some(region.file_offset()?.file().as_raw_fd())
    }

    /// Cuts the memfd short, or makes it longer again: what only a hostile front end does. To touch what
    /// is cut off ends the test.
    ///
    /// # Errors
    /// ftruncate(2)'s.
    pub fn set_file_len(&self, len: u64) -> Result<()> {
        let region = self.shared.map.iter().next();
        let Some(backing) = region.and_then(GuestMemoryRegion::file_offset) else {
            return Ok(());
        };
        ftruncate(backing.file(), len).map_err(|errno| Error::MakeMemory(errno.into()))
    }

    /// Takes `len` bytes at a multiple of `align` (a power of two).
    ///
    /// # Errors
    /// When no region has that much left.
    pub fn alloc(&self, len: usize, align: usize) -> Result<GuestAddress> {
        let key = (len.max(1).next_multiple_of(MIN_ALIGN), align.max(MIN_ALIGN));
        let mut space = self.space();
        if let Some(address) = space.returned.get_mut(&key).and_then(Vec::pop) {
            return Ok(GuestAddress(address));
        }
        for (next, end) in &mut space.rest {
            let start = next.next_multiple_of(key.1 as u64);
            if start
                .checked_add(key.0 as u64)
                .is_some_and(|stop| stop <= *end)
            {
                *next = start + key.0 as u64;
                return Ok(GuestAddress(start));
            }
        }
        Err(Error::OutOfMemory { len, align })
    }

    /// Gives a buffer back that [`alloc`](Self::alloc) gave out for the same `len` and `align`.
    pub fn free(&self, address: GuestAddress, len: usize, align: usize) {
        let key = (len.max(1).next_multiple_of(MIN_ALIGN), align.max(MIN_ALIGN));
        self.space()
            .returned
            .entry(key)
            .or_default()
            .push(address.0);
    }

    /// Takes a buffer and fills it with `bytes`.
    ///
    /// # Errors
    /// When no region has that much left.
    pub fn alloc_with(&self, bytes: &[u8]) -> Result<GuestAddress> {
        let address = self.alloc(bytes.len(), MIN_ALIGN)?;
        self.write(address, bytes)?;
        Ok(address)
    }

    /// Copies `bytes` to `address`.
    ///
    /// # Errors
    /// When the range is not in guest memory.
    pub fn write(&self, address: GuestAddress, bytes: &[u8]) -> Result<()> {
        let context = outside(address, bytes.len());
        self.shared.map.write_slice(bytes, address).map_err(context)
    }

    /// Copies from `address` into `bytes`.
    ///
    /// # Errors
    /// When the range is not in guest memory.
    pub fn read_into(&self, address: GuestAddress, bytes: &mut [u8]) -> Result<()> {
        let context = outside(address, bytes.len());
        self.shared.map.read_slice(bytes, address).map_err(context)
    }

    /// Copies `len` bytes from `address`.
    ///
    /// # Errors
    /// When the range is not in guest memory.
    pub fn read(&self, address: GuestAddress, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_into(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Sets `len` bytes from `address` to `byte`.
    ///
    /// # Errors
    /// When the range is not in guest memory.
    pub fn fill(&self, address: GuestAddress, byte: u8, len: usize) -> Result<()> {
        self.write(address, &vec![byte; len])
    }

    /// A checksum of a range, to see that nothing wrote to it.
    ///
    /// # Errors
    /// When the range is not in guest memory.
    pub fn checksum(&self, address: GuestAddress, len: usize) -> Result<u64> {
        let mut sum = 0xcbf2_9ce4_8422_2325_u64;
        let mut buffer = vec![0; CHUNK.min(len)];
        let mut done = 0;
        while done < len {
            let part = (len - done).min(CHUNK);
            self.read_into(address.unchecked_add(done as u64), &mut buffer[..part])?;
            for word in buffer[..part].chunks(8) {
                let mut bytes = [0; 8];
                bytes[..word.len()].copy_from_slice(word);
                sum = (sum.rotate_left(5) ^ u64::from_le_bytes(bytes))
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
            done += part;
        }
        Ok(sum)
    }

    /// A checksum of all regions.
    ///
    /// # Errors
    /// Never: all regions are mapped.
    pub fn checksum_all(&self) -> Result<u64> {
        let mut sum = 0_u64;
        for region in self.shared.map.iter() {
            let len = usize::try_from(region.len()).unwrap_or(usize::MAX);
            sum = sum.rotate_left(1) ^ self.checksum(region.start_addr(), len)?;
        }
        Ok(sum)
    }

    /// Where `address` is mapped in this process: the user address of SET_VRING_ADDR.
    ///
    /// # Errors
    /// When the address is not in guest memory.
    pub fn user_address(&self, address: GuestAddress) -> Result<u64> {
        let host = self
            .shared
            .map
            .get_host_address(address)
            .map_err(outside(address, 1))?;
        Ok(host as u64)
    }

    /// The memory itself, for system calls that read or write it.
    pub(crate) fn slice(&self, address: GuestAddress, len: usize) -> Result<VolatileSlice<'_>> {
        let slice = self.shared.map.get_slice(address, len);
        slice.map_err(outside(address, len))
    }

    pub(crate) fn load<T: AtomicAccess>(&self, address: GuestAddress) -> Result<T> {
        self.shared
            .map
            .load(address, Ordering::Acquire)
            .map_err(outside(address, size_of::<T>()))
    }

    pub(crate) fn store<T: AtomicAccess>(&self, address: GuestAddress, value: T) -> Result<()> {
        let context = outside(address, size_of::<T>());
        self.shared
            .map
            .store(value, address, Ordering::Release)
            .map_err(context)
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        self.shared
            .space
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let regions = self
            .shared
            .map
            .iter()
            .map(|region| (region.start_addr(), region.len()));
        f.debug_list().entries(regions).finish()
    }
}

fn memfd(len: u64) -> Result<Arc<File>> {
    let fd = memfd_create("lab-guest-memory", MemfdFlags::CLOEXEC)
        .map_err(|errno| Error::MakeMemory(errno.into()))?;
    ftruncate(&fd, len).map_err(|errno| Error::MakeMemory(errno.into()))?;
    Ok(Arc::new(File::from(fd)))
}

fn outside(address: GuestAddress, len: usize) -> impl FnOnce(vm_memory::GuestMemoryError) -> Error {
    move |source| Error::Memory {
        address: address.0,
        len,
        source,
    }
}
