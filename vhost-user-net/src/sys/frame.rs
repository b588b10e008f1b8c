//! Frames between guest memory and a descriptor, without a copy of ours.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, iovec};
use smallvec::SmallVec;
use vhost_daemon::sys::Buffers;

/// Most ranges that one readv(2) or writev(2) takes (`UIO_MAXIOV` of linux/uio.h).
const MAX_RANGES: usize = 1024;

/// Where one frame with its header lands: guest buffers, and after them memory of our own that
/// catches what the guest's buffers do not hold.
pub struct Scatter<'a> {
    guest: SmallVec<[&'a Buffers; 2]>,
    spill: &'a mut [u8],
    guest_len: usize,
}

impl<'a> Scatter<'a> {
    /// `guest` buffers in order, then `spill`. Buffers beyond what one system call takes are left out.
    pub fn new(guest: impl IntoIterator<Item = &'a Buffers>, spill: &'a mut [u8]) -> Self {
        let mut ranges = 0;
        let fits = |buffers: &&Buffers| {
            ranges += buffers.iovecs().len();
            ranges < MAX_RANGES
        };
        let guest: SmallVec<[&Buffers; 2]> = guest.into_iter().take_while(fits).collect();
        Self {
            guest_len: guest.iter().map(|buffers| buffers.len()).sum(),
            guest,
            spill,
        }
    }

    /// How many bytes land in guest buffers before the rest spills.
    pub fn guest_len(&self) -> usize {
        self.guest_len
    }

    /// Copies a frame in, made of `parts` one behind the other; what fits nowhere is left out. Returns
    /// its length.
    pub fn fill(&mut self, parts: &[&[u8]]) -> usize {
        let mut at = 0;
        for part in parts {
            self.copy_to(at, part);
            at += part.len();
        }
        at
    }

    fn copy_to(&mut self, mut at: usize, mut bytes: &[u8]) {
        for buffers in &self.guest {
            if at < buffers.len() {
                let done = buffers.write_at(at, bytes);
                bytes = bytes.get(done..).unwrap_or_default();
                at += done;
            }
            if bytes.is_empty() {
                return;
            }
            at -= buffers.len();
        }
        if let Some(room) = self.spill.get_mut(at..) {
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
        }
    }

    /// Appends all of it as a system call takes it.
    pub(super) fn ranges_into(&mut self, ranges: &mut Vec<iovec>) {
        for buffers in &self.guest {
            ranges.extend_from_slice(buffers.iovecs());
        }
        ranges.push(iovec {
            iov_base: self.spill.as_mut_ptr().cast(),
            iov_len: self.spill.len(),
        });
    }
}

/// Reads one frame (readv(2)): bytes read.
///
/// # Errors
/// readv(2)'s.
pub(super) fn read_frame(fd: BorrowedFd<'_>, into: &mut Scatter<'_>) -> io::Result<usize> {
    let mut ranges = Vec::with_capacity(8);
    into.ranges_into(&mut ranges);
    // SAFETY: each range lies in guest memory that borrowed `Buffers` keep mapped, or is the
    // exclusively borrowed spill; `into` holds both borrows across the call. `count` is the
    // array's length.
    let read = unsafe { libc::readv(fd.as_raw_fd(), ranges.as_ptr(), count(&ranges)) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Writes one frame (writev(2)): bytes written.
///
/// # Errors
/// writev(2)'s; `EINVAL` too when the frame lies in more than 1024 pieces.
pub(super) fn write_frame(fd: BorrowedFd<'_>, frame: &Buffers) -> io::Result<usize> {
    let ranges = frame.iovecs();
    // SAFETY: the ranges lie in guest memory that `frame` keeps mapped across the call; the
    // kernel only reads them. `count` is the array's length.
    let written = unsafe { libc::writev(fd.as_raw_fd(), ranges.as_ptr(), count(ranges)) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

fn count(ranges: &[iovec]) -> c_int {
    c_int::try_from(ranges.len()).unwrap_or(c_int::MAX)
}

/// Writes frames without their headers of `header` bytes, each behind its length in 32 bits in network
/// order, as many as one writev(2) takes: bytes written, and of how many frames they are a part. None where
/// the first one alone lies in too many pieces.
pub fn write_prefixed(
    fd: BorrowedFd<'_>,
    frames: &[&Buffers],
    header: usize,
) -> (io::Result<usize>, usize) {
    let fits = |count: &mut usize, frame: &&Buffers| {
        *count += 1 + frame.iovecs().len();
        (*count <= MAX_RANGES).then_some(frame.len())
    };
    let lengths = frames.iter().scan(0, |count, frame| fits(count, frame));
    let prefixes: SmallVec<[[u8; 4]; 64]> = lengths
        .map(|len| {
            u32::try_from(len - header.min(len))
                .unwrap_or(0)
                .to_be_bytes()
        })
        .collect();
    let mut ranges: SmallVec<[iovec; 128]> = SmallVec::new();
    for (prefix, frame) in prefixes.iter().zip(frames) {
        ranges.push(iovec {
            iov_base: prefix.as_ptr().cast_mut().cast(),
            iov_len: prefix.len(),
        });
        let mut skip = header;
        for range in frame.iovecs() {
            let cut = skip.min(range.iov_len);
            skip -= cut;
            if cut < range.iov_len {
                ranges.push(iovec {
                    // `cut` is less than the range's length, so the new base is inside it.
                    iov_base: range.iov_base.wrapping_byte_add(cut),
                    iov_len: range.iov_len - cut,
                });
            }
        }
    }
    // SAFETY: the ranges lie in `prefixes` or in guest memory that `frames` keep mapped across the
    // call; the kernel only reads them. `count` is the array's length.
    let written = unsafe { libc::writev(fd.as_raw_fd(), ranges.as_ptr(), count(&ranges)) };
    let written = usize::try_from(written).map_err(|_| io::Error::last_os_error());
    (written, prefixes.len())
}
