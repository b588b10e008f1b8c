//! File status, in the structures that the `FileSystem` trait wants.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use fuse_backend_rs::abi::fuse_abi::{stat64, statvfs64};
use rustix::fs::{AtFlags, Statx, StatxFlags};

/// What statx(2) tells of a file: attributes, and what identifies it on this host.
#[derive(Clone, Copy)]
pub(crate) struct FileStatus {
    pub(crate) attributes: stat64,
    /// Differs between two mounts of one file system.
    pub(crate) mount_id: u64,
    pub(crate) raw: Statx,
}

/// The status of an open file, `O_PATH` descriptors included.
pub(crate) fn status_of(fd: impl AsFd) -> io::Result<FileStatus> {
    status(fd, c"", AtFlags::EMPTY_PATH)
}

/// The status of what has a name, which is one component, in a directory.
pub(crate) fn status_at(directory: impl AsFd, name: &CStr) -> io::Result<FileStatus> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    status(directory, name, flags)
}

fn status(fd: impl AsFd, path: &CStr, flags: AtFlags) -> io::Result<FileStatus> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    let raw = rustix::fs::statx(fd, path, flags, mask)?;
    let mount_id = if raw.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        0
    } else {
        raw.stx_mnt_id
    };
    Ok(FileStatus {
        attributes: attributes_from(&raw),
        mount_id,
        raw,
    })
}

#[allow(
    clippy::cast_possible_wrap,
    reason = "sizes and block counts are off_t in the kernel: below 2^63"
)]
fn attributes_from(raw: &Statx) -> stat64 {
    // SAFETY: `stat64` holds only integers: all zeroes is a valid one.
    let mut stat: stat64 = unsafe { MaybeUninit::zeroed().assume_init() };
    stat.st_dev = libc::makedev(raw.stx_dev_major, raw.stx_dev_minor);
    stat.st_ino = raw.stx_ino;
    stat.st_nlink = raw.stx_nlink.into();
    stat.st_mode = raw.stx_mode.into();
    stat.st_uid = raw.stx_uid;
    stat.st_gid = raw.stx_gid;
    stat.st_rdev = libc::makedev(raw.stx_rdev_major, raw.stx_rdev_minor);
    stat.st_size = raw.stx_size as i64;
    stat.st_blksize = raw.stx_blksize.into();
    stat.st_blocks = raw.stx_blocks as i64;
    stat.st_atime = raw.stx_atime.tv_sec;
    stat.st_atime_nsec = raw.stx_atime.tv_nsec.into();
    stat.st_mtime = raw.stx_mtime.tv_sec;
    stat.st_mtime_nsec = raw.stx_mtime.tv_nsec.into();
    stat.st_ctime = raw.stx_ctime.tv_sec;
    stat.st_ctime_nsec = raw.stx_ctime.tv_nsec.into();
    stat
}

/// fstatvfs(2), which takes `O_PATH` descriptors too.
pub(crate) fn file_system_status(fd: impl AsFd) -> io::Result<statvfs64> {
    let mut status = MaybeUninit::<statvfs64>::uninit();
    // SAFETY: the descriptor is open while borrowed, and `status` has room for the result.
    if unsafe { libc::fstatvfs64(fd.as_fd().as_raw_fd(), status.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded and filled it.
    Ok(unsafe { status.assume_init() })
}
