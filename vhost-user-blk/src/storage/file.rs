//! Files of the host that images are kept in: opening, locking, what they can do.

use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, StatxFlags, fallocate, fstat, fstatfs, statx};
use thiserror::Error;
use vhost_daemon::file_lock::{self, Lock};

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

/// Gives the space of a range back; it reads as zeroes then.
pub(super) const PUNCH: FallocateFlags =
    FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// A mode of fallocate(2) as the system call takes it.
pub(super) fn bits(mode: FallocateFlags) -> i32 {
    i32::try_from(mode.bits()).unwrap_or(0)
}

/// Opens an image file or block device and locks it: exclusively for writing, shared for reading
/// (flock(2)).
///
/// # Errors
/// See [`OpenError`].
pub(super) fn open(
    path: &Path,
    read_only: bool,
    direct: bool,
) -> Result<(File, FileType), OpenError> {
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
    Ok((file, kind))
}

/// Whether space of the file can be given back. `size` is its length in bytes.
pub(super) fn can_punch(file: &File, kind: FileType, size: u64) -> bool {
    if kind.is_block_device() {
        can_zero_without_writing(file)
    } else {
        // Punching behind the end changes nothing, but tells whether the file system can.
        fallocate(file, PUNCH, size, 4096).is_ok()
    }
}

/// Locks the image: exclusively for writing, shared for reading.
fn lock(file: &File, path: &Path, read_only: bool) -> Result<(), OpenError> {
    let kind = if read_only {
        Lock::Shared
    } else {
        Lock::Exclusive
    };
    file_lock::lock(file, path, kind).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse(path.to_owned()),
        _ => OpenError::Open {
            path: path.to_owned(),
            source,
        },
    })
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
pub(super) fn is_in_memory(file: &File) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    fstatfs(file).is_ok_and(|stat| matches!(u64::try_from(stat.f_type), Ok(TMPFS | RAMFS)))
}

/// What direct I/O on `file` asks for (statx(2), `STATX_DIOALIGN`), 4096 where the kernel does not
/// tell.
pub(super) fn direct_alignment(file: &File) -> usize {
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
