//! /dev/fuse: what moves between it and guest memory, and sharing a connection between threads.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// `FUSE_DEV_IOC_CLONE`: `_IOR(229, 0, uint32_t)` (linux/fuse.h).
const FUSE_DEV_IOC_CLONE: libc::c_ulong = 0x8004_e500;

/// Opens /dev/fuse; reads do not wait.
pub(crate) fn open() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/fuse")
}

/// A further descriptor of a mounted connection, with a table of its own for requests that were
/// read from it.
pub(crate) fn share(connection: &File) -> io::Result<File> {
    let device = open()?;
    let source = connection.as_raw_fd();
    // SAFETY: the ioctl reads one int, which lives across the call.
    if unsafe { libc::ioctl(device.as_raw_fd(), FUSE_DEV_IOC_CLONE, &raw const source) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(device)
}

/// Reads one request into `parts`, one after the other.
pub(crate) fn read<B: BitmapSlice, const N: usize>(
    device: &File,
    parts: &[VolatileSlice<'_, B>; N],
) -> io::Result<usize> {
    let guards = parts.each_ref().map(VolatileSlice::ptr_guard_mut);
    let vectors = guards.each_ref().map(|guard| libc::iovec {
        iov_base: guard.as_ptr().cast(),
        iov_len: guard.len(),
    });
    let count = libc::c_int::try_from(N).unwrap_or(libc::c_int::MAX);
    // SAFETY: each vector names mapped guest memory that `parts` borrow; whoever else has it
    // mapped treats it as volatile, and so do we.
    let got = unsafe { libc::readv(device.as_raw_fd(), vectors.as_ptr(), count) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Writes one reply out of `parts`, one after the other.
pub(crate) fn write<B: BitmapSlice, const N: usize>(
    device: &File,
    parts: &[VolatileSlice<'_, B>; N],
) -> io::Result<()> {
    let guards = parts.each_ref().map(VolatileSlice::ptr_guard);
    let vectors = guards.each_ref().map(|guard| libc::iovec {
        iov_base: guard.as_ptr().cast_mut().cast(),
        iov_len: guard.len(),
    });
    let count = libc::c_int::try_from(N).unwrap_or(libc::c_int::MAX);
    // SAFETY: each vector names mapped guest memory that `parts` borrow; the kernel only reads it.
    let put = unsafe { libc::writev(device.as_raw_fd(), vectors.as_ptr(), count) };
    if put < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
