//! Frames between guest memory and a descriptor, without a copy of ours.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, iovec};
use smallvec::SmallVec;
use vhost_daemon::sys::Buffers;

/// Most ranges that one readv(2) or writev(2) takes (`UIO_MAXIOV` of linux/uio.h).
const MAX_RANGES: usize = 1024;

/// Where one frame with its header lands: guest buffers, and after them memory of our own that
/// catches what the guest's buffers do not hold.
pub struct Scatter<'a> {
    ranges: SmallVec<[iovec; 64]>,
    guest_len: usize,
    /// The ranges point into these.
    borrowed: PhantomData<(&'a Buffers, &'a mut [u8])>,
}

impl<'a> Scatter<'a> {
    /// `guest` buffers in order, then `spill`.
    pub fn new(guest: impl IntoIterator<Item = &'a Buffers>, spill: &'a mut [u8]) -> Self {
        let mut ranges = SmallVec::new();
        let mut guest_len = 0;
        for range in guest.into_iter().flat_map(Buffers::iovecs) {
            if ranges.len() == MAX_RANGES - 1 {
                break;
            }
            guest_len += range.iov_len;
            ranges.push(*range);
        }
        ranges.push(iovec {
            iov_base: spill.as_mut_ptr().cast(),
            iov_len: spill.len(),
        });
        Self {
            ranges,
            guest_len,
            borrowed: PhantomData,
        }
    }

    /// How many bytes land in guest buffers before the rest spills.
    pub fn guest_len(&self) -> usize {
        self.guest_len
    }
}

/// Reads one frame (readv(2)): bytes read.
///
/// # Errors
/// readv(2)'s.
pub fn read_frame(fd: BorrowedFd<'_>, into: &mut Scatter<'_>) -> io::Result<usize> {
    let count = count(&into.ranges);
    // SAFETY: each range lies in guest memory that borrowed `Buffers` keep mapped, or is the
    // exclusively borrowed spill; `into` holds both borrows across the call. `count` is the
    // array's length.
    let read = unsafe { libc::readv(fd.as_raw_fd(), into.ranges.as_ptr(), count) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Writes one frame (writev(2)): bytes written.
///
/// # Errors
/// writev(2)'s; `EINVAL` too when the frame lies in more than 1024 pieces.
pub fn write_frame(fd: BorrowedFd<'_>, frame: &Buffers) -> io::Result<usize> {
    let ranges = frame.iovecs();
    // SAFETY: the ranges lie in guest memory that `frame` keeps mapped across the call; the
    // kernel only reads them. `count` is the array's length.
    let written = unsafe { libc::writev(fd.as_raw_fd(), ranges.as_ptr(), count(ranges)) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

fn count(ranges: &[iovec]) -> c_int {
    c_int::try_from(ranges.len()).unwrap_or(c_int::MAX)
}
