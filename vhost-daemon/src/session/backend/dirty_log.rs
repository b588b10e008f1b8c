//! A new memory table while the front end logs what is written.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use vhost::vhost_user::message::VhostUserVirtioFeatures;
use vhost_user_backend::bitmap::{BitmapReplace, MemRegionBitmap, MmapLogReg};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::Backend;
use crate::memory::Memory;
use crate::sys::RegionLog;

/// The last log that the front end sent.
pub(super) type LastLog = Option<Arc<MmapLogReg>>;

impl<D> Backend<D> {
    /// Whether the front end wants what is written marked in its log.
    pub(super) fn logs_writes(&self) -> bool {
        let log_all = VhostUserVirtioFeatures::LOG_ALL.bits();
        self.acknowledged.load(Ordering::Acquire) & log_all != 0
    }

    /// Gives the front end's log to regions of a new table that have none: the library gives it only to those
    /// that are there when it comes.
    ///
    /// # Errors
    /// When it is too short for what it is to tell of.
    pub(super) fn carry_log_to(&self, memory: &Memory) -> io::Result<()> {
        let mut last = self.last_log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(newest) = self.log_of_current_table() {
            *last = Some(newest);
        }
        let Some(log) = &*last else {
            return Ok(());
        };
        for region in memory.iter() {
            let place = region.bitmap();
            if place.whole().is_some() {
                continue;
            }
            match RegionLog::new(region, log.clone()) {
                Ok(part) => place.replace(part),
                Err(error) if self.logs_writes() => return Err(error),
                // Of an earlier migration: nothing is marked in it.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn log_of_current_table(&self) -> LastLog {
        let current = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut regions = current.as_ref()?.memory().iter();
        regions.find_map(|region| region.bitmap().whole())
    }
}
