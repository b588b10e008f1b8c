//! Operations done by the calling thread at once, for files that never make it wait.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::{Buffers, Io, IoFile};

impl Io {
    /// Does the operation now, with plain system calls. `registered` are the files that
    /// [`IoFile::Registered`] names, by index. The result is as from the io_uring.
    ///
    /// # Errors
    /// The system call's; `EBADF` for a file that is not registered.
    pub fn run_inline(&self, registered: &[BorrowedFd<'_>]) -> io::Result<u32> {
        let fd = |file: &IoFile| match file {
            IoFile::Open(file) => Ok(file.as_raw_fd()),
            IoFile::Registered(index) => registered
                .get(*index as usize)
                .map(AsRawFd::as_raw_fd)
                .ok_or(io::Error::from_raw_os_error(libc::EBADF)),
        };
        match self {
            Self::Read {
                file,
                buffers,
                offset,
            } => read(fd(file)?, buffers, *offset),
            Self::Write {
                file,
                buffers,
                offset,
                flags,
            } => write(fd(file)?, buffers, *offset, *flags),
            Self::Fsync { file, data_only } => sync(fd(file)?, *data_only),
            Self::Fallocate {
                file,
                mode,
                offset,
                len,
            } => allocate(fd(file)?, *mode, *offset, *len),
        }
    }
}

fn vector(buffers: &Buffers) -> (*const libc::iovec, libc::c_int) {
    let iovecs = buffers.iovecs();
    (
        iovecs.as_ptr(),
        i32::try_from(iovecs.len()).unwrap_or(i32::MAX),
    )
}

fn position(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn read(fd: RawFd, buffers: &Buffers, offset: u64) -> io::Result<u32> {
    let (iovecs, count) = vector(buffers);
    let offset = position(offset)?;
    // SAFETY: the iovecs name memory that `buffers` keeps mapped, and the call returns when the
    // kernel is done with it.
    outcome(unsafe { libc::preadv(fd, iovecs, count, offset) })
}

fn write(fd: RawFd, buffers: &Buffers, offset: u64, flags: i32) -> io::Result<u32> {
    let (iovecs, count) = vector(buffers);
    let offset = position(offset)?;
    // SAFETY: as for reading.
    outcome(unsafe { libc::pwritev2(fd, iovecs, count, offset, flags) })
}

fn sync(fd: RawFd, data_only: bool) -> io::Result<u32> {
    let call = if data_only {
        libc::fdatasync
    } else {
        libc::fsync
    };
    // SAFETY: either call takes a descriptor and no pointer.
    outcome(unsafe { call(fd) } as isize)
}

fn allocate(fd: RawFd, mode: i32, offset: u64, len: u64) -> io::Result<u32> {
    let (offset, len) = (position(offset)?, position(len)?);
    // SAFETY: the call takes no pointer.
    outcome(unsafe { libc::fallocate(fd, mode, offset, len) } as isize)
}

fn outcome(result: isize) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}
