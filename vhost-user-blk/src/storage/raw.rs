//! A raw image file or a block device of the host.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, FallocateFlags, FlockOperation, StatxFlags, fallocate, flock, fstat, fstatfs, statx,
};
use rustix::io::Errno;
use thiserror::Error;
use vhost_daemon::queue::Buffers;
use vhost_daemon::worker::{Io, IoFile};

use super::Storage;
use super::in_memory::InMemory;
use crate::request::SECTOR;

/// An image cannot be served.
#[derive(Debug, Error)]
pub enum OpenError {
    /// open(2) or stat(2) failed.
    #[error("cannot open disk image {path}")]
    Open {
        /// The image.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Neither a regular file nor a block device.
    #[error("{0} is neither a regular file nor a block device")]
    WrongKind(PathBuf),
    /// Not one sector.
    #[error("disk image {0} is smaller than one sector of 512 bytes")]
    Empty(PathBuf),
    /// The file system knows no direct I/O.
    #[error("--direct: the file system of {0} has no direct I/O")]
    NoDirectIo(PathBuf),
    /// Someone else has it open for writing, or we want to write and someone has it open.
    #[error("disk image {0} is in use by another process (its lock is held)")]
    InUse(PathBuf),
}

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

const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
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
        let failed = |source| OpenError::Open {
            path: path.to_owned(),
            source,
        };
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::WrongKind(path.to_owned()));
        }
        let mut open = OpenOptions::new();
        open.read(true).write(!read_only);
        if direct {
            open.custom_flags(libc::O_DIRECT);
        }
        let file = open
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::EINVAL) if direct => OpenError::NoDirectIo(path.to_owned()),
                _ => failed(error),
            })?;
        lock(&file, path, read_only)?;
        let size = (&file).seek(SeekFrom::End(0)).map_err(failed)?;
        let capacity = size - size % SECTOR;
        if capacity == 0 {
            return Err(OpenError::Empty(path.to_owned()));
        }
        if size != capacity {
            tracing::warn!(image = %path.display(), size, "the last partial sector is not served");
        }
        let can_punch = if kind.is_block_device() {
            can_zero_without_writing(&file)
        } else {
            // Punching behind the end changes nothing, but tells whether the file system can.
            fallocate(&file, PUNCH, size, 4096).is_ok()
        };
        Ok(Self {
            read_only,
            can_punch: can_punch && discard && !read_only,
            // A block device zeroes by writing, if it must; a file system that punches holes too.
            can_zero: can_punch || kind.is_block_device(),
            in_memory: (!direct && is_in_memory(&file))
                .then(|| InMemory::new(&file, capacity, !read_only))
                .transpose()
                .map_err(failed)?,
            alignment: if direct { direct_alignment(&file) } else { 1 },
            no_zero_range: AtomicBool::new(false),
            file,
        })
    }
}

/// How long to wait for another process to give an image up.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// Locks the image: exclusively for writing, shared for reading.
///
/// A process that was killed holds its lock until the kernel has finished its last operations:
/// waiting for them also keeps a late write of its from landing on a newer one of ours.
fn lock(file: &File, path: &Path, read_only: bool) -> Result<(), OpenError> {
    let kind = if read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(file, kind) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(Errno::WOULDBLOCK) => return Err(OpenError::InUse(path.to_owned())),
            Err(error) => {
                return Err(OpenError::Open {
                    path: path.to_owned(),
                    source: error.into(),
                });
            }
        }
    }
}

/// Whether a block device zeroes ranges by itself. Without that the kernel refuses to punch holes
/// in it (`BLKDEV_ZERO_NOFALLBACK`).
fn can_zero_without_writing(device: &File) -> bool {
    let Ok(stat) = fstat(device) else {
        return false;
    };
    let (major, minor) = (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    );
    let limit = format!("/sys/dev/block/{major}:{minor}/queue/write_zeroes_max_bytes");
    let limit = std::fs::read_to_string(limit).unwrap_or_default();
    limit.trim().parse::<u64>().is_ok_and(|bytes| bytes > 0)
}

/// Whether the file's system keeps all of it in memory (statfs(2), `f_type`).
fn is_in_memory(file: &File) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    fstatfs(file).is_ok_and(|stat| matches!(u64::try_from(stat.f_type), Ok(TMPFS | RAMFS)))
}

/// What direct I/O on `file` asks for (statx(2), `STATX_DIOALIGN`), 4096 where the kernel does not
/// tell.
fn direct_alignment(file: &File) -> usize {
    let told = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok();
    let told = told.filter(|stat| stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
    let align = told.map_or(0, |stat| {
        stat.stx_dio_mem_align.max(stat.stx_dio_offset_align)
    });
    if align.is_power_of_two() {
        align as usize
    } else {
        4096
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

    fn read(&self, offset: u64, data: Buffers) -> Io {
        Io::Read {
            file: IMAGE,
            buffers: data,
            offset,
        }
    }

    fn write(&self, offset: u64, data: Buffers, durable: bool) -> Io {
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        Io::Write {
            file: IMAGE,
            buffers: data,
            offset,
            flags,
        }
    }

    fn flush(&self) -> Io {
        Io::Fsync {
            file: IMAGE,
            data_only: true,
        }
    }

    fn discard(&self, offset: u64, len: u64) -> Io {
        allocate(PUNCH, offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Io {
        let punch = unmap || self.no_zero_range.load(Ordering::Relaxed);
        allocate(if punch { PUNCH } else { ZERO }, offset, len)
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

fn bits(mode: FallocateFlags) -> i32 {
    i32::try_from(mode.bits()).unwrap_or(0)
}
