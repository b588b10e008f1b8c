//! Block operations on an open image.

use std::io::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use imago::storage::drivers::{CommonStorageHelper, RangeBlockedGuard};
use imago::{FormatAccess, Mapping, ShallowMapping};
use tokio::sync::{Semaphore, SemaphorePermit};
use vhost_daemon::queue::Buffers;

use super::layer::Layer;
use super::sys::{self, Alone};

/// An open image with the images below it.
pub(super) struct Image {
    pub(super) access: FormatAccess<Layer>,
    pub(super) cluster_size: u64,
    pub(super) writable: bool,
    /// Give the space of discarded clusters back to the host.
    pub(super) punch: bool,
    /// Write tables before a request is answered that changed them: the process may be killed, and the
    /// guest goes on with the next one.
    pub(super) keep_tables: bool,
    /// Requests at work, by the ranges of the disk. Those that free clusters or zero parts of them
    /// lock every other out (strong), all others go together (weak).
    ranges: CommonStorageHelper,
    heavy: Semaphore,
    /// A panic left imago's tables in memory in a state that nobody knows: they must not reach the disk.
    failed: AtomicBool,
}

/// How many requests may allocate or decompress at a time. Each holds tables of imago's cache, which
/// fails when all its 128 are held, and memory for a cluster or two.
const HEAVY: usize = 32;

/// How much of a compressed run is read at a time.
const DECOMPRESSED: usize = 1 << 21;

/// How many parts of one request are read at a time.
const PARTS: usize = 16;

impl Image {
    pub(super) fn new(access: FormatAccess<Layer>, cluster_size: u64, writable: bool) -> Self {
        Self {
            access,
            cluster_size,
            writable,
            punch: false,
            keep_tables: false,
            ranges: CommonStorageHelper::default(),
            heavy: Semaphore::new(HEAVY),
            failed: AtomicBool::new(false),
        }
    }

    /// Watches a request from here to its end: one that panics fails the image.
    fn watch(&self) -> io::Result<PanicWatch<'_>> {
        self.check()?;
        Ok(PanicWatch(self))
    }

    fn check(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(io::Error::other(
                "the image is no longer used since a request panicked",
            ));
        }
        Ok(())
    }

    /// Futures of reads and writes are small, because they are moved to the heap for every request;
    /// what is rare is boxed by itself.
    pub(super) async fn read(self: Arc<Self>, at: u64, mut data: Buffers) -> io::Result<u32> {
        let _watch = self.watch()?;
        let count = length(&data)?;
        let _shared = self.share(at, data.len() as u64).await;
        let (mapping, len) = self.access.get_mapping(at, data.len() as u64).await?;
        let part = front(&mut data, len)?;
        if data.is_empty() {
            self.read_part(mapping, part).await?;
        } else {
            let first = self.read_part(mapping, part);
            Box::pin(self.read_parts(first, at + len, data)).await?;
        }
        Ok(count)
    }

    /// Finishes `first`, and reads what is mapped elsewhere at the same time.
    ///
    /// Nothing else is awaited while a part has begun and not ended: imago's locks are handed to parts that
    /// wait for them whether or not they are polled, and one that is not keeps them from everybody.
    async fn read_parts<'a>(
        &'a self,
        first: impl Future<Output = io::Result<()>> + 'a,
        mut at: u64,
        mut data: Buffers,
    ) -> io::Result<()> {
        let mut parts = Parts::new();
        parts.push(Box::pin(first));
        while !data.is_empty() {
            if parts.len() >= PARTS {
                finish_all(&mut parts).await?;
            }
            let (mapping, len) = self.access.get_mapping(at, data.len() as u64).await?;
            let part = front(&mut data, len)?;
            at += len;
            parts.push(Box::pin(self.read_part(mapping, part)));
        }
        finish_all(&mut parts).await
    }

    async fn read_part(&self, mapping: Mapping<'_, Layer>, mut part: Buffers) -> io::Result<()> {
        match mapping {
            Mapping::Raw {
                storage, offset, ..
            } => storage.read_guest(offset, part).await,
            Mapping::Zero { .. } | Mapping::Eof { .. } => {
                part.zero_front(part.len());
                Ok(())
            }
            Mapping::Special { layer, offset, .. } => {
                Box::pin(self.read_compressed(layer, offset, part)).await
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    async fn read_compressed(
        &self,
        layer: &FormatAccess<Layer>,
        mut offset: u64,
        mut part: Buffers,
    ) -> io::Result<()> {
        let _permit = self.heavy().await;
        while !part.is_empty() {
            let mut bytes = vec![0; part.len().min(DECOMPRESSED)];
            layer.read(&mut bytes, offset).await?;
            part.write_all(&bytes)?;
            offset += bytes.len() as u64;
        }
        Ok(())
    }

    pub(super) async fn write(
        self: Arc<Self>,
        mut at: u64,
        mut data: Buffers,
        durable: bool,
    ) -> io::Result<u32> {
        let _watch = self.watch()?;
        let count = length(&data)?;
        let mut allocated = false;
        let shared = self.share(at, data.len() as u64).await;
        while !data.is_empty() {
            let wanted = data.len() as u64;
            let (mapping, mapped) = self.access.get_shallow_mapping(at, wanted).await?;
            at += match mapping {
                ShallowMapping::Raw {
                    storage,
                    offset,
                    writable: true,
                    ..
                } => {
                    let part = front(&mut data, mapped)?;
                    storage.write_guest(offset, part).await?;
                    mapped
                }
                _ => {
                    allocated = true;
                    Box::pin(self.allocate_and_write(at, &mut data)).await?
                }
            };
        }
        drop(shared);
        if durable {
            Box::pin(self.flush_all()).await?;
        } else if allocated {
            Box::pin(self.tables_changed()).await?;
        }
        Ok(count)
    }

    /// Writes the front of `data` to clusters that are new or have been copied; returns how much.
    async fn allocate_and_write(&self, at: u64, data: &mut Buffers) -> io::Result<u64> {
        let _permit = self.heavy().await;
        let wanted = data.len() as u64;
        let mapping = self.access.prepare_data_mapping(at, wanted, true).await?;
        let len = mapping.length();
        let part = front(data, len)?;
        mapping
            .storage()
            .write_guest(mapping.offset(), part)
            .await?;
        self.access.commit_data_mapping(mapping).await?;
        Ok(len)
    }

    pub(super) async fn flush(self: Arc<Self>) -> io::Result<u32> {
        let _watch = self.watch()?;
        self.flush_all().await?;
        Ok(0)
    }

    pub(super) async fn flush_all(&self) -> io::Result<()> {
        self.check()?;
        // Data first: a table that points to it is durable as soon as it is written.
        self.access.sync().await?;
        self.access.flush().await
    }

    /// Writes imago's tables if they have to outlive the process.
    async fn tables_changed(&self) -> io::Result<()> {
        if self.keep_tables {
            self.access.flush().await?;
        }
        Ok(())
    }

    pub(super) async fn discard(self: Arc<Self>, offset: u64, len: u64) -> io::Result<u32> {
        let _watch = self.watch()?;
        let range = offset..offset + len;
        let alone = self.alone(&range).await;
        self.give_back(&range, &alone).await?;
        sys::discard(&self.access, range, &alone).await?;
        drop(alone);
        self.tables_changed().await?;
        Ok(0)
    }

    pub(super) async fn write_zeroes(
        self: Arc<Self>,
        offset: u64,
        len: u64,
        unmap: bool,
    ) -> io::Result<u32> {
        let _watch = self.watch()?;
        let range = offset..offset + len;
        // Alone in either case: zeroing a part of a cluster may zero all of it, after a look at
        // the rest.
        let alone = self.alone(&range).await;
        if unmap {
            self.give_back(&range, &alone).await?;
            sys::discard_to_zero(&self.access, range, &alone).await?;
        } else {
            let _permit = self.heavy().await;
            self.access.write_zeroes(offset, len).await?;
        }
        drop(alone);
        self.tables_changed().await?;
        Ok(0)
    }

    /// Gives the space of the whole clusters in `range` back to the host. They still belong to the
    /// disk, so nobody gets them meanwhile; imago only marks them as free afterwards.
    async fn give_back<G>(&self, range: &Range<u64>, _alone: &Alone<G>) -> io::Result<()> {
        if !self.punch {
            return Ok(());
        }
        let mut at = range.start.next_multiple_of(self.cluster_size);
        let end = range.end - range.end % self.cluster_size;
        while at < end {
            let (mapping, len) = self.access.get_shallow_mapping(at, end - at).await?;
            if len == 0 {
                break;
            }
            if let ShallowMapping::Raw {
                storage,
                offset,
                writable: true,
                ..
            } = mapping
            {
                storage.file.punch(offset, len).await?;
            }
            at += len;
        }
        Ok(())
    }

    /// Keeps what needs a range alone out of `at..at + len`.
    async fn share(&self, at: u64, len: u64) -> Option<RangeBlockedGuard<'_>> {
        if !self.writable {
            return None;
        }
        Some(self.ranges.weak_write_blocker(at..at + len).await)
    }

    /// Keeps every other request out of the clusters that `range` touches.
    async fn alone(&self, range: &Range<u64>) -> Alone<RangeBlockedGuard<'_>> {
        let start = range.start - range.start % self.cluster_size;
        let clusters = start..range.end.next_multiple_of(self.cluster_size);
        let guard = self.ranges.strong_write_blocker(clusters.clone()).await;
        Alone::new(guard, clusters)
    }

    async fn heavy(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.heavy.acquire().await.ok()
    }
}

/// Notices a panic of the request it belongs to.
struct PanicWatch<'a>(&'a Image);

impl Drop for PanicWatch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::Relaxed);
        }
    }
}

/// Parts of a read.
type Parts<'a> = FuturesUnordered<LocalBoxFuture<'a, io::Result<()>>>;

/// Runs all parts to their end, also after one failed: the kernel may still write to the buffers of the others.
async fn finish_all(parts: &mut Parts<'_>) -> io::Result<()> {
    let mut all = Ok(());
    while let Some(result) = parts.next().await {
        all = all.and(result);
    }
    all
}

fn length(data: &Buffers) -> io::Result<u32> {
    u32::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Takes `len` bytes off the front, which a mapping never exceeds.
fn front(data: &mut Buffers, len: u64) -> io::Result<Buffers> {
    let len = usize::try_from(len).ok().filter(|len| *len > 0);
    len.and_then(|len| data.split_front(len))
        .ok_or(io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
mod tests;
