//! A raw image file or a block device of the host.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FallocateFlags;
use vhost_daemon::queue::Buffers;
use vhost_daemon::worker::{Io, IoFile};

use super::file::{self, OpenError, PUNCH, bits};
use super::in_memory::InMemory;
use super::{Operation, Storage};
use crate::request::SECTOR;

/// A raw file: block n is at byte 512 n.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    read_only: bool,
    /// Whether space may be given back: it is wanted, and the file system or device can.
    can_punch: bool,
    /// Whether a range can be zeroed at least one way.
    can_zero: bool,
    /// If the file is kept in memory.
    in_memory: Option<InMemory>,
    /// What direct I/O asks addresses and lengths to be a multiple of; 1 through the page cache.
    alignment: usize,
    /// The kernel once said that this file system cannot zero a range and keep its space.
    no_zero_range: AtomicBool,
}

const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);

/// How a raw file is opened.
#[derive(Clone, Copy, Debug)]
pub struct RawOptions {
    /// Refuse writes.
    pub read_only: bool,
    /// Go around the host's page cache (`O_DIRECT`).
    pub direct: bool,
    /// Give space back to the host when the guest discards.
    pub discard: bool,
}

impl RawFile {
    /// Opens `path` and locks it: exclusively for writing, shared for reading (flock(2)).
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, options: RawOptions) -> Result<Self, OpenError> {
        let RawOptions {
            read_only,
            direct,
            discard,
        } = options;
        let (file, kind) = file::open(path, read_only, direct)?;
        let failed = |source| OpenError::Open {
            path: path.to_owned(),
            source,
        };
        let size = (&file).seek(SeekFrom::End(0)).map_err(failed)?;
        let capacity = size - size % SECTOR;
        if capacity == 0 {
            return Err(OpenError::Empty(path.to_owned()));
        }
        if size != capacity {
            tracing::warn!(image = %path.display(), size, "the last partial sector is not served");
        }
        let can_punch = file::can_punch(&file, kind, size);
        Ok(Self {
            read_only,
            can_punch: can_punch && discard && !read_only,
            // A block device zeroes by writing, if it must; a file system that punches holes too.
            can_zero: can_punch || kind.is_block_device(),
            in_memory: (!direct && file::is_in_memory(&file))
                .then(|| InMemory::new(&file, capacity, !read_only))
                .transpose()
                .map_err(failed)?,
            alignment: if direct {
                file::direct_alignment(&file)
            } else {
                1
            },
            no_zero_range: AtomicBool::new(false),
            file,
        })
    }
}

/// The image is the one file registered with the io_uring.
const IMAGE: IoFile = IoFile::Registered(0);

impl Storage for RawFile {
    fn capacity(&self) -> io::Result<u64> {
        // The offset of the descriptor is used for nothing else.
        let size = (&self.file).seek(SeekFrom::End(0))?;
        if let Some(memory) = &self.in_memory {
            memory.extend_to(size);
        }
        Ok(size - size % SECTOR)
    }

    fn begin(&self) {
        if let Some(memory) = &self.in_memory {
            memory.begin();
        }
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn can_discard(&self) -> bool {
        self.can_punch
    }

    fn can_write_zeroes(&self) -> bool {
        !self.read_only && (self.can_punch || self.can_zero)
    }

    fn files(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.file.as_fd()]
    }

    fn read(&self, offset: u64, data: Buffers) -> Operation {
        Operation::Io(Io::Read {
            file: IMAGE,
            buffers: data,
            offset,
        })
    }

    fn write(&self, offset: u64, data: Buffers, durable: bool) -> Operation {
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        Operation::Io(Io::Write {
            file: IMAGE,
            buffers: data,
            offset,
            flags,
        })
    }

    fn flush(&self) -> Operation {
        Operation::Io(Io::Fsync {
            file: IMAGE,
            data_only: true,
        })
    }

    fn discard(&self, offset: u64, len: u64) -> Operation {
        Operation::Io(allocate(PUNCH, offset, len))
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Operation {
        let punch = unmap || self.no_zero_range.load(Ordering::Relaxed);
        Operation::Io(allocate(if punch { PUNCH } else { ZERO }, offset, len))
    }

    fn alignment(&self) -> usize {
        self.alignment
    }

    fn run_now(&self, io: &Io) -> Option<io::Result<u32>> {
        Some(self.in_memory.as_ref()?.run(io))
    }

    fn instead_of(&self, refused: &Io) -> Option<Io> {
        match refused {
            Io::Fallocate {
                mode, offset, len, ..
            } if *mode == bits(ZERO) => {
                self.no_zero_range.store(true, Ordering::Relaxed);
                Some(allocate(PUNCH, *offset, *len))
            }
            _ => None,
        }
    }
}

fn allocate(mode: FallocateFlags, offset: u64, len: u64) -> Io {
    Io::Fallocate {
        file: IMAGE,
        mode: bits(mode),
        offset,
        len,
    }
}
