//! Whether a write is durable once it is answered (virtio 1.2, 5.2.5.2 and 5.2.6.2).

use std::sync::atomic::{AtomicBool, Ordering};

/// The write cache of a disk. It is on if the driver can flush and has not switched it off; the
/// driver may switch while the queues run (`VIRTIO_BLK_F_CONFIG_WCE`).
#[derive(Debug)]
pub struct WriteCache {
    chosen: AtomicBool,
    driver_flushes: AtomicBool,
}

impl Default for WriteCache {
    fn default() -> Self {
        Self {
            chosen: AtomicBool::new(true),
            driver_flushes: AtomicBool::new(false),
        }
    }
}

impl WriteCache {
    /// Whether writes may be answered before they are durable.
    pub fn is_on(&self) -> bool {
        self.chosen.load(Ordering::Relaxed) && self.driver_flushes.load(Ordering::Relaxed)
    }

    /// What the configuration space shows: the driver's choice. Front ends read it before the
    /// driver says whether it can flush.
    pub fn chosen(&self) -> bool {
        self.chosen.load(Ordering::Relaxed)
    }

    /// What the driver wants.
    pub fn choose(&self, on: bool) {
        self.chosen.store(on, Ordering::Relaxed);
    }

    /// Whether the driver knows how to flush (`VIRTIO_BLK_F_FLUSH`).
    pub fn set_flushes(&self, flushes: bool) {
        self.driver_flushes.store(flushes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_driver_that_flushes_gets_a_cache_and_its_choice_lasts() {
        let cache = WriteCache::default();
        assert!(!cache.is_on());
        cache.set_flushes(true);
        assert!(cache.is_on());
        cache.choose(false);
        cache.set_flushes(true);
        assert!(
            !cache.is_on(),
            "features acknowledged again must not switch it on"
        );
    }
}
