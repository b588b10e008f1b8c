//! imago's traits, whose functions are `unsafe` to call.
#![allow(
    unsafe_code,
    reason = "imago marks what bypasses its own locks as unsafe: the trait functions that we provide, \
              and the one that frees clusters"
)]

use std::io;
use std::ops::Range;

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::drivers::CommonStorageHelper;
use imago::{FormatAccess, Storage};

use super::layer::Layer;

// "Unsafe" here means that a caller has to heed alignment and overlapping writes; neither is needed
// for the soundness of ours: memory is passed in slices and copied.
impl Storage for Layer {
    fn mem_align(&self) -> usize {
        self.file.alignment
    }

    fn req_align(&self) -> usize {
        self.file.alignment
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    async unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        self.read_own(bufv, offset).await
    }

    async unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        self.write_own(bufv, offset).await
    }

    async unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.zero(offset, length).await
    }

    async fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        self.make_durable().await
    }

    async fn settle_writes(&self) -> io::Result<()> {
        self.file.changes.settled().await;
        Ok(())
    }

    async unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.file.blockers
    }
}

/// That no other request uses the range of the disk it was made for.
pub(super) struct Alone<G> {
    _guard: G,
    pub(super) range: Range<u64>,
}

impl<G> Alone<G> {
    /// `guard` keeps every other request out of `range`, in bytes of the disk.
    pub(super) fn new(guard: G, range: Range<u64>) -> Self {
        Self {
            _guard: guard,
            range,
        }
    }
}

/// Frees the clusters of `range`, which reads as zeroes then; parts of clusters are left alone.
pub(super) async fn discard<G>(
    image: &FormatAccess<Layer>,
    range: Range<u64>,
    alone: &Alone<G>,
) -> io::Result<()> {
    let len = check(&range, alone)?;
    // SAFETY: nobody else holds a mapping of these clusters: whoever looks one up for a request keeps
    // the request's range locked for as long, and this range is ours alone.
    unsafe { image.discard_to_any_unsafe(range.start, len) }.await
}

/// Zeroes `range` and frees its clusters where they are whole.
pub(super) async fn discard_to_zero<G>(
    image: &FormatAccess<Layer>,
    range: Range<u64>,
    alone: &Alone<G>,
) -> io::Result<()> {
    let len = check(&range, alone)?;
    // SAFETY: as in `discard`.
    unsafe { image.discard_to_zero_unsafe(range.start, len) }.await
}

fn check<G>(range: &Range<u64>, alone: &Alone<G>) -> io::Result<u64> {
    if range.start < alone.range.start || range.end > alone.range.end {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(range.end - range.start)
}
