//! The block device as the vhost-user session sees it.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;
use vhost_daemon::Device;
use vhost_daemon::boot_id::BootId;
use vhost_daemon::metrics::Metrics;
use vhost_daemon::queue::{InFlightFile, InFlightLog, LogError};
use vhost_daemon::rate::Limits;
use vhost_daemon::session::FrontEnd;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_WRITE_ZEROES,
};

use crate::config_space::{Contents, Geometry, WRITEBACK_OFFSET};
use crate::control::{DiskState, Operations};
use crate::limits::Rates;
use crate::request::{Disk, Serial};
use crate::storage::Storage;
use crate::worker::{BlockWorker, OperationCounts};
use crate::write_cache::WriteCache;

/// One disk: its storage and what its queues share.
pub struct BlockDevice<S> {
    storage: Arc<S>,
    /// Capacity in bytes; grows by [`ControlledDisk::resize`].
    capacity: Arc<AtomicU64>,
    disk: Disk,
    geometry: Geometry,
    serial: Serial,
    queues: usize,
    write_cache: Arc<WriteCache>,
    counts: Vec<OperationCounts>,
    in_flight: Option<Arc<InFlightFile>>,
    limits: Arc<Limits>,
    front_end: Mutex<FrontEnd>,
    connected: AtomicBool,
}

/// What can be done to a disk while it is served.
pub trait ControlledDisk: Send + Sync {
    /// The disk as it is now.
    fn state(&self) -> DiskState;

    /// Sets the rate limits.
    fn limit(&self, rates: Rates);

    /// Takes up the medium's new size and tells the guest.
    ///
    /// # Errors
    /// See [`ResizeError`].
    fn resize(&self) -> Result<(), ResizeError>;
}

/// A disk cannot take up its medium's new size.
#[derive(Debug, Error)]
pub enum ResizeError {
    /// The medium does not tell its size.
    #[error("the size of the image cannot be read")]
    Unknown(#[source] io::Error),
    /// It has a size of its own.
    #[error(
        "a qcow2 image keeps its size while it is served: stop the daemon, then `qemu-img resize`"
    )]
    Fixed,
    /// It is smaller than what the guest relies on.
    #[error("the image has shrunk to {0} bytes; a disk can only grow")]
    Shrunk(u64),
}

impl<S: Storage> BlockDevice<S> {
    /// A disk with `queues` queues on `storage`.
    ///
    /// # Errors
    /// When the storage does not tell its capacity.
    pub fn new(
        storage: S,
        geometry: Geometry,
        serial: Serial,
        queues: usize,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let capacity = whole_blocks(storage.capacity()?, geometry);
        let disk = Disk {
            capacity,
            read_only: storage.read_only(),
            can_discard: storage.can_discard(),
            can_write_zeroes: storage.can_write_zeroes(),
        };
        Ok(Self {
            capacity: Arc::new(AtomicU64::new(capacity)),
            front_end: Mutex::default(),
            connected: AtomicBool::new(false),
            disk,
            storage: Arc::new(storage),
            geometry,
            serial,
            queues,
            write_cache: Arc::default(),
            counts: (0..queues)
                .map(|queue| OperationCounts::register(metrics, queue))
                .collect(),
            in_flight: None,
            limits: Arc::default(),
        })
    }

    /// Remembers requests in flight in `file`, so that the next process does them once more if
    /// this one is killed during this `boot` of the host, and whether the driver wants the write cache.
    /// To be called before the device is served.
    ///
    /// # Errors
    /// When the file there cannot be used, or another daemon uses it.
    pub fn remember_in(&mut self, file: &Path, boot: BootId) -> Result<(), LogError> {
        let log = InFlightFile::open(file, boot, self.queues, self.max_queue_size())?;
        let log = Arc::new(log);
        self.write_cache = Arc::new(WriteCache::remembered(log.clone(), self.queues));
        self.in_flight = Some(log);
        Ok(())
    }

    /// One log line: what is served.
    pub fn announce(&self, name: &str, source: &str) {
        let Geometry { block_size, .. } = self.geometry;
        tracing::info!(
            disk = name,
            source,
            bytes = self.disk.capacity,
            block_size,
            read_only = self.disk.read_only,
            queues = self.queues,
            discard = self.disk.can_discard,
            "serving disk"
        );
    }
}

/// A partial block at the end could not be accessed.
fn whole_blocks(bytes: u64, geometry: Geometry) -> u64 {
    bytes - bytes % u64::from(geometry.block_size)
}

impl<S: Storage> ControlledDisk for BlockDevice<S> {
    fn state(&self) -> DiskState {
        DiskState {
            connected: self.connected.load(Ordering::Relaxed),
            capacity: self.capacity.load(Ordering::Relaxed),
            read_only: self.disk.read_only,
            queues: self.queues,
            write_cache: self.write_cache.is_on(),
            limits: self.limits.rates().into(),
            operations: self.counts.iter().map(Operations::from).sum(),
        }
    }

    fn limit(&self, rates: Rates) {
        tracing::info!(?rates, "limits set");
        self.limits.set(rates.into());
    }

    fn resize(&self) -> Result<(), ResizeError> {
        if !self.storage.can_resize() {
            return Err(ResizeError::Fixed);
        }
        let bytes = self.storage.capacity().map_err(ResizeError::Unknown)?;
        let bytes = whole_blocks(bytes, self.geometry);
        // Never smaller than what the guest was told, also when two ask at once.
        if self.capacity.fetch_max(bytes, Ordering::Relaxed) > bytes {
            return Err(ResizeError::Shrunk(bytes));
        }
        tracing::info!(bytes, "disk resized");
        self.front_end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .config_changed();
        Ok(())
    }
}

/// A set of feature bits as the mask that is negotiated.
fn mask(bits: &[u32]) -> u64 {
    bits.iter().fold(0, |mask, bit| mask | 1 << bit)
}

impl<S: Storage> Device for BlockDevice<S> {
    type Worker = BlockWorker<S>;

    fn queues(&self) -> usize {
        self.queues
    }

    fn features(&self) -> u64 {
        let mut features = mask(&[
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_CONFIG_WCE,
        ]);
        let optional = [
            (self.queues > 1, VIRTIO_BLK_F_MQ),
            (self.disk.read_only, VIRTIO_BLK_F_RO),
            (self.disk.can_discard, VIRTIO_BLK_F_DISCARD),
            (self.disk.can_write_zeroes, VIRTIO_BLK_F_WRITE_ZEROES),
        ];
        for (offered, bit) in optional {
            features |= u64::from(offered) << bit;
        }
        features
    }

    /// Block requests may be done twice: a crash between doing and telling does no harm.
    fn in_flight_log(&self, index: usize) -> Option<InFlightLog> {
        self.in_flight.as_ref().map(|file| file.queue(index))
    }

    fn config(&self) -> Vec<u8> {
        let contents = Contents {
            capacity: self.capacity.load(Ordering::Relaxed),
            geometry: self.geometry,
            queues: u16::try_from(self.queues).unwrap_or(u16::MAX),
            writeback: self.write_cache.chosen(),
        };
        contents.bytes()
    }

    fn write_config(&self, offset: usize, data: &[u8]) -> io::Result<()> {
        match (offset, data) {
            (WRITEBACK_OFFSET, [value @ (0 | 1)]) => {
                tracing::debug!(write_cache = value, "the guest switched the write cache");
                self.write_cache.choose(*value == 1);
                Ok(())
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "only the field 'writeback' can be written, to 0 or 1",
            )),
        }
    }

    fn acknowledged(&self, features: u64) {
        self.write_cache
            .set_flushes(features & mask(&[VIRTIO_BLK_F_FLUSH]) != 0);
    }

    fn connected(&self, front_end: &FrontEnd) {
        *self
            .front_end
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = front_end.clone();
        self.connected.store(true, Ordering::Relaxed);
        self.storage.begin();
    }

    fn disconnected(&self) {
        self.connected.store(false, Ordering::Relaxed);
        self.write_cache.disconnected();
    }

    fn worker(&self, index: usize, _features: u64) -> io::Result<BlockWorker<S>> {
        let counts = self
            .counts
            .get(index)
            .cloned()
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(BlockWorker::new(
            self.storage.clone(),
            (self.disk, self.capacity.clone()),
            self.serial,
            (self.write_cache.clone(), index),
            counts,
            self.limits.clone(),
        ))
    }
}
