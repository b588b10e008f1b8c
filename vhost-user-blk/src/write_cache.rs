//! Whether a write is durable once it is answered (virtio 1.2, 5.2.5.2 and 5.2.6.2).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost_daemon::queue::{InFlightFile, RingIdentity};

/// The write cache of a disk. It is on if the driver can flush and has not switched it off; the
/// driver may switch while the queues run (`VIRTIO_BLK_F_CONFIG_WCE`).
///
/// A driver that goes on in another connection, or with another process of ours, does not switch it off once
/// more, and front ends repeat features and rings only. So its choice is kept with its rings. Where a ring goes on
/// and nothing is known of it, the cache is off until the driver shows that it flushes, or chooses.
#[derive(Debug)]
pub struct WriteCache {
    chosen: AtomicBool,
    /// A ring goes on whose driver nobody remembers.
    doubted: AtomicBool,
    driver_flushes: AtomicBool,
    driver: Mutex<Driver>,
    /// Where it outlives the process.
    file: Option<Arc<InFlightFile>>,
}

#[derive(Debug, Default)]
struct Driver {
    /// It has chosen in this connection.
    has_chosen: bool,
    /// By queue.
    rings: Vec<Option<KnownRing>>,
}

/// A ring that a queue ran on last.
#[derive(Clone, Copy, Debug)]
struct KnownRing {
    identity: RingIdentity,
    /// Whether its driver wants the cache, if that is known.
    chosen: Option<bool>,
    /// It ran in this connection.
    is_current: bool,
}

/// Notes in the state file; 0 is none.
const ON: u64 = 1;
const OFF: u64 = 2;

impl Default for WriteCache {
    fn default() -> Self {
        Self {
            chosen: AtomicBool::new(true),
            doubted: AtomicBool::new(false),
            driver_flushes: AtomicBool::new(false),
            driver: Mutex::default(),
            file: None,
        }
    }
}

impl WriteCache {
    /// That of a disk of `queues` queues, as an earlier process left it in `file`.
    pub fn remembered(file: Arc<InFlightFile>, queues: usize) -> Self {
        let ring = |index| {
            let (identity, note) = file.noted(index);
            Some(KnownRing {
                identity,
                chosen: match note {
                    ON => Some(true),
                    OFF => Some(false),
                    _ => None,
                },
                is_current: false,
            })
        };
        let driver = Driver {
            has_chosen: false,
            rings: (0..queues).map(ring).collect(),
        };
        Self {
            driver: Mutex::new(driver),
            file: Some(file),
            ..Self::default()
        }
    }

    fn driver(&self) -> MutexGuard<'_, Driver> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether writes may be answered before they are durable.
    pub fn is_on(&self) -> bool {
        self.chosen.load(Ordering::Relaxed)
            && !self.doubted.load(Ordering::Relaxed)
            && self.driver_flushes.load(Ordering::Relaxed)
    }

    /// What the configuration space shows: the driver's choice. Front ends read it before the
    /// driver says whether it can flush.
    pub fn chosen(&self) -> bool {
        self.chosen.load(Ordering::Relaxed)
    }

    /// What the driver wants.
    pub fn choose(&self, on: bool) {
        let mut driver = self.driver();
        driver.has_chosen = true;
        self.chosen.store(on, Ordering::Relaxed);
        self.doubted.store(false, Ordering::Relaxed);
        self.keep(&mut driver);
    }

    /// The driver flushes, as only one does that has the cache on.
    pub fn flushed(&self) {
        if self.doubted.load(Ordering::Relaxed) {
            let mut driver = self.driver();
            self.doubted.store(false, Ordering::Relaxed);
            self.keep(&mut driver);
        }
    }

    /// Whether the driver knows how to flush (`VIRTIO_BLK_F_FLUSH`).
    pub fn set_flushes(&self, flushes: bool) {
        self.driver_flushes.store(flushes, Ordering::Relaxed);
    }

    /// Queue `index` begins to run on `ring`, whose used index is `used`.
    pub fn ring_starts(&self, index: usize, ring: &RingIdentity, used: u16) {
        let mut driver = self.driver();
        if driver.rings.len() <= index {
            driver.rings.resize(index + 1, None);
        }
        let known = driver.rings[index].filter(|known| known.identity == *ring);
        if !driver.has_chosen {
            match known.and_then(|known| known.chosen) {
                Some(true) => {}
                Some(false) => self.chosen.store(false, Ordering::Relaxed),
                None if used != 0 => self.doubted.store(true, Ordering::Relaxed),
                None => {}
            }
        }
        driver.rings[index] = Some(KnownRing {
            identity: *ring,
            chosen: None,
            is_current: true,
        });
        self.keep(&mut driver);
    }

    /// The connection is over: the next driver begins with the cache on, unless it is this one.
    pub fn disconnected(&self) {
        let mut driver = self.driver();
        driver.has_chosen = false;
        for ring in driver.rings.iter_mut().flatten() {
            ring.is_current = false;
        }
        self.chosen.store(true, Ordering::Relaxed);
        self.doubted.store(false, Ordering::Relaxed);
    }

    /// Keeps what is known now with the rings of this connection.
    fn keep(&self, driver: &mut Driver) {
        let is_known = !self.doubted.load(Ordering::Relaxed);
        let chosen = is_known.then(|| self.chosen());
        for (index, ring) in driver.rings.iter_mut().enumerate() {
            if let Some(ring) = ring.as_mut().filter(|ring| ring.is_current) {
                ring.chosen = chosen;
                if let Some(file) = &self.file {
                    file.note(index, chosen.map_or(0, |on| if on { ON } else { OFF }));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(at: u64) -> RingIdentity {
        RingIdentity::from_words([at, 1, 2, 64, 4, 5])
    }

    fn cache() -> WriteCache {
        let cache = WriteCache::default();
        cache.set_flushes(true);
        cache
    }

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

    #[test]
    fn the_choice_goes_with_the_ring() {
        let cache = cache();
        cache.ring_starts(1, &ring(1), 0);
        cache.choose(false);
        cache.disconnected();
        assert!(cache.is_on() && cache.chosen());
        // An idle ring of the same driver comes first.
        cache.ring_starts(0, &ring(7), 0);
        cache.ring_starts(1, &ring(1), 100);
        assert!(!cache.is_on() && !cache.chosen());
        cache.flushed();
        assert!(!cache.is_on(), "it may flush all the same");
        cache.disconnected();
        cache.ring_starts(1, &ring(2), 0);
        assert!(cache.is_on(), "another driver");
    }

    #[test]
    fn a_ring_that_nobody_knows_has_no_cache_before_it_flushes() {
        let cache = cache();
        for _ in 0..2 {
            cache.ring_starts(0, &ring(1), 9);
            assert!(!cache.is_on() && cache.chosen());
            cache.disconnected();
        }
        cache.ring_starts(0, &ring(1), 9);
        cache.flushed();
        assert!(cache.is_on());
        cache.disconnected();
        cache.ring_starts(0, &ring(1), 20);
        assert!(cache.is_on(), "known by now");
    }
}
