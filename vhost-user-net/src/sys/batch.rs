//! Many frames with one system call: an io_uring that is only ever used for operations that do not
//! wait.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::types::Fixed;
use io_uring::{IoUring, opcode, squeue};
use libc::iovec;
use smallvec::SmallVec;
use vhost_daemon::sys::Buffers;

use super::Scatter;
use super::frame::{read_frame, write_frame};

/// Reads and writes batches of frames on one descriptor that is in non-blocking mode.
///
/// Each operation is done, or refused with `EAGAIN`, inside the system call that submits it: nothing
/// is ever under way when a call has returned.
pub struct FrameBatch {
    /// `None` where io_uring fails or would wait: then it is a system call for each frame.
    ring: Option<IoUring>,
    results: Vec<i32>,
    /// The ranges of a batch of places, and where those of each end.
    ranges: Vec<iovec>,
    ends: Vec<usize>,
}

impl FrameBatch {
    /// Most frames of one batch.
    pub const MOST: usize = 64;

    /// For `fd`, made by the thread that will use it.
    ///
    /// # Errors
    /// io_uring_setup(2)'s and io_uring_register(2)'s.
    pub fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let ring = match knows_nowait(fd) {
            true => Some(ring_on(fd)?),
            false => None,
        };
        Ok(Self {
            ring,
            results: Vec::with_capacity(Self::MOST),
            ranges: Vec::new(),
            ends: Vec::new(),
        })
    }

    /// Reads one frame into each place, in order, until there are no more. `each` learns of every place
    /// what readv(2) would have said; at most [`Self::MOST`] places are looked at.
    pub fn read(
        &mut self,
        fd: BorrowedFd<'_>,
        places: &mut [Scatter<'_>],
        mut each: impl FnMut(usize, io::Result<usize>),
    ) {
        let count = places.len().min(Self::MOST);
        let (places, _) = places.split_at_mut(count);
        if let [place] = places {
            return each(0, read_frame(fd, place));
        }
        self.ranges.clear();
        self.ends.clear();
        for place in &mut *places {
            place.ranges_into(&mut self.ranges);
            self.ends.push(self.ranges.len());
        }
        let starts = std::iter::once(&0).chain(&self.ends);
        let spans = starts.zip(&self.ends).map(|(start, end)| *start..*end);
        let entries = spans.map(|span| {
            let (ranges, count) = vector(self.ranges.get(span).unwrap_or_default());
            opcode::Readv::new(Fixed(0), ranges, count)
                .rw_flags(libc::RWF_NOWAIT)
                .build()
        });
        let entries: SmallVec<[_; Self::MOST]> = entries.collect();
        // SAFETY: the ranges lie in memory that `places` borrow, writable, across this call, and
        // nothing changes `self.ranges` meanwhile.
        let done = unsafe { run(&mut self.ring, &mut self.results, &entries) };
        match done {
            Ok(()) => report(&self.results, each),
            Err(_) => {
                for (index, place) in places.iter_mut().enumerate() {
                    each(index, read_frame(fd, place));
                }
            }
        }
    }

    /// Writes frames in order. `each` learns of every frame what writev(2) would have said; at most
    /// [`Self::MOST`] are looked at.
    pub fn write(
        &mut self,
        fd: BorrowedFd<'_>,
        frames: &[&Buffers],
        mut each: impl FnMut(usize, io::Result<usize>),
    ) {
        let frames = frames.get(..Self::MOST).unwrap_or(frames);
        if let [frame] = frames {
            return each(0, write_frame(fd, frame));
        }
        let entries = frames.iter().map(|frame| write_entry(frame.iovecs()));
        let entries: SmallVec<[_; Self::MOST]> = entries.collect();
        // SAFETY: the ranges lie in guest memory that `frames` keep mapped across this call.
        let done = unsafe { run(&mut self.ring, &mut self.results, &entries) };
        match done {
            Ok(()) => report(&self.results, each),
            Err(_) => {
                for (index, frame) in frames.iter().enumerate() {
                    each(index, write_frame(fd, frame));
                }
            }
        }
    }
}

impl Drop for FrameBatch {
    /// The kernel takes a ring apart some time after it is closed: the tap must not wait for that.
    fn drop(&mut self) {
        if let Some(ring) = &self.ring {
            let _ = ring.submitter().unregister_files();
        }
    }
}

fn write_entry(ranges: &[iovec]) -> squeue::Entry {
    if let [one] = ranges
        && let Ok(len) = u32::try_from(one.iov_len)
    {
        return opcode::Write::new(Fixed(0), one.iov_base.cast(), len)
            .rw_flags(libc::RWF_NOWAIT)
            .build();
    }
    let (ranges, count) = vector(ranges);
    opcode::Writev::new(Fixed(0), ranges, count)
        .rw_flags(libc::RWF_NOWAIT)
        .build()
}

fn vector(ranges: &[iovec]) -> (*const iovec, u32) {
    (
        ranges.as_ptr(),
        u32::try_from(ranges.len()).unwrap_or(u32::MAX),
    )
}

fn report(results: &[i32], mut each: impl FnMut(usize, io::Result<usize>)) {
    for (index, result) in results.iter().enumerate() {
        let result = usize::try_from(*result)
            .map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()));
        each(index, result);
    }
}

/// Submits all entries and takes all their results, in the order of the entries. After an error the
/// ring is gone: it may hold entries that were not submitted.
///
/// # Safety
/// What the entries point to stays as it is until the function returns; operations on the registered
/// file do not wait.
unsafe fn run(
    ring: &mut Option<IoUring>,
    results: &mut Vec<i32>,
    entries: &[squeue::Entry],
) -> io::Result<()> {
    results.clear();
    results.resize(entries.len(), -libc::EAGAIN);
    let Some(live) = ring.as_mut() else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let mut pushed = 0;
    for (entry, index) in entries.iter().zip(0_u64..) {
        let entry = entry.clone().user_data(index);
        // SAFETY: the caller keeps what the entry points to; every entry pushed here has completed
        // when this function returns, or goes, not submitted, with the ring.
        if unsafe { live.submission().push(&entry) }.is_ok() {
            pushed += 1;
        }
    }
    let mut reaped = 0;
    while reaped < pushed {
        if let Err(error) = live.submit_and_wait(pushed - reaped)
            && error.kind() != io::ErrorKind::Interrupted
        {
            *ring = None;
            return Err(error);
        }
        for completion in live.completion() {
            reaped += 1;
            let index = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
            if let Some(result) = results.get_mut(index) {
                *result = completion.result();
            }
        }
    }
    Ok(())
}

fn ring_on(fd: BorrowedFd<'_>) -> io::Result<IoUring> {
    let entries = u32::try_from(FrameBatch::MOST).unwrap_or(64);
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_submit_all()
        .build(entries)?;
    ring.submitter().register_files(&[fd.as_raw_fd()])?;
    Ok(ring)
}

/// Whether the descriptor's driver knows `RWF_NOWAIT`. Where it is only in non-blocking mode io_uring
/// waits for it all the same: Linux 6.1 with a tap does.
fn knows_nowait(fd: BorrowedFd<'_>) -> bool {
    let byte = [0_u8];
    let range = iovec {
        iov_base: byte.as_ptr().cast_mut().cast(),
        iov_len: 1,
    };
    // SAFETY: the range names a live byte, which the kernel only reads. A frame of one byte is
    // refused in any case (drivers/net/tun.c, `tun_get_user`).
    let written =
        unsafe { libc::pwritev2(fd.as_raw_fd(), &raw const range, 1, -1, libc::RWF_NOWAIT) };
    let refused = io::Error::last_os_error().raw_os_error() == Some(libc::EOPNOTSUPP);
    !(written < 0 && refused)
}
