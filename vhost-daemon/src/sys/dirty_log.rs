//! The front end's dirty log (vhost-user, "Migration"): a bit for each page of guest memory.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use vhost_user_backend::bitmap::{AtomicBitmapMmap, BitmapReplace, MemRegionBitmap, MmapLogReg};
use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};
use vm_memory::mmap::NewBitmap;
use vm_memory::{Address, GuestMemoryRegion};

use super::lost_memory::Guarded;

/// `VHOST_LOG_PAGE`: what a bit stands for, whatever the pages' size.
const PAGE: usize = 4096;

/// The place for a log of one region of guest memory, empty until the front end sends one.
///
/// The library's own would do, but for a front end that cuts its log's file short: marking goes on into
/// nothing then, and the daemon lives. The front end sees for itself what it did to its log.
#[derive(Clone, Debug, Default)]
pub struct DirtyLog {
    place: Arc<Place>,
    /// Where this slice begins in the region.
    base: usize,
}

#[derive(Debug, Default)]
struct Place {
    log: RwLock<Option<RegionLog>>,
    /// Something was marked while there was no log: the first one that comes gets the whole region.
    missed: AtomicBool,
}

/// The part of a log that tells of one region.
#[derive(Debug)]
pub struct RegionLog {
    // Before the log: fields are dropped in this order, and what is guarded must be mapped.
    _guard: Guarded,
    log: Arc<MmapLogReg>,
    /// Number of the region's first page, and how many there are.
    first: usize,
    pages: usize,
}

impl MemRegionBitmap for RegionLog {
    fn new<R: GuestMemoryRegion>(region: &R, log: Arc<MmapLogReg>) -> io::Result<Self> {
        // Fails if the region is empty or the log too short for it.
        AtomicBitmapMmap::new(region, log.clone())?;
        let last = usize::try_from(region.last_addr().raw_value()).map_err(io::Error::other)?;
        let len = usize::try_from(region.len()).map_err(io::Error::other)?;
        let start = log[0].as_ptr().cast_const();
        // SAFETY: the library mapped the log for itself alone; it stays mapped as long as `log`, which is
        // dropped after the guard, and holds atomic bytes of any value. The range reaches to the byte of
        // the region's last page, inside the log as checked above; what overlaps is of the same mapping.
        let guard = unsafe { Guarded::new(start, last / PAGE / 8 + 1) }?;
        Ok(Self {
            _guard: guard,
            log,
            first: (last - (len - 1)) / PAGE,
            pages: len.div_ceil(PAGE),
        })
    }
}

impl RegionLog {
    fn has(&self, page: usize) -> bool {
        let at = self.first + page;
        page < self.pages && self.log[at / 8].load(Ordering::Relaxed) & 1 << (at % 8) != 0
    }

    fn mark(&self, first: usize, last: usize) {
        for page in first..=last.min(self.pages.saturating_sub(1)) {
            let at = self.first + page;
            self.log[at / 8].fetch_or(1 << (at % 8), Ordering::Relaxed);
        }
    }
}

impl DirtyLog {
    fn read(&self) -> RwLockReadGuard<'_, Option<RegionLog>> {
        let log = self.place.log.read();
        log.unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole log that the front end sent, if it sent one.
    pub fn whole(&self) -> Option<Arc<MmapLogReg>> {
        self.read().as_ref().map(|log| log.log.clone())
    }
}

impl Bitmap for DirtyLog {
    fn mark_dirty(&self, offset: usize, len: usize) {
        match (&*self.read(), len) {
            (_, 0) => {}
            (Some(log), _) => {
                let start = self.base.saturating_add(offset);
                log.mark(start / PAGE, start.saturating_add(len - 1) / PAGE);
            }
            (None, _) => self.place.missed.store(true, Ordering::Relaxed),
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let log = self.read();
        let page = self.base.saturating_add(offset) / PAGE;
        log.as_ref().is_some_and(|log| log.has(page))
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self {
            place: self.place.clone(),
            base: self.base.saturating_add(offset),
        }
    }
}

impl WithBitmapSlice<'_> for DirtyLog {
    type S = Self;
}

impl BitmapSlice for DirtyLog {}

impl NewBitmap for DirtyLog {
    fn with_len(_len: usize) -> Self {
        Self::default()
    }
}

impl BitmapReplace for DirtyLog {
    type InnerBitmap = RegionLog;

    fn replace(&self, log: RegionLog) {
        let mut place = self
            .place
            .log
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if self.place.missed.swap(false, Ordering::Relaxed) {
            log.mark(0, usize::MAX);
        }
        *place = Some(log);
    }
}
