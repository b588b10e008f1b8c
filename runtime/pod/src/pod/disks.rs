//! A running pod's disks that come and go.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Pod;
use crate::daemons::{self, Daemons};
use crate::disk::PodDisk;
use crate::plug::{MOST_DISKS, Orders};
use crate::{PodError, chain};

/// Those that came after the machine's start.
#[derive(Debug)]
pub(super) struct LaterDisks {
    /// Whom to ask for them.
    orders: Option<Orders>,
    /// The places of those that are there, by their serials.
    places: Mutex<BTreeMap<String, usize>>,
    /// How many there have been.
    count: AtomicU64,
}

impl LaterDisks {
    /// None yet.
    pub(super) fn new(orders: Option<Orders>) -> Self {
        Self {
            orders,
            places: Mutex::default(),
            count: AtomicU64::new(0),
        }
    }

    /// A serial that no other disk had.
    fn next_serial(&self) -> String {
        format!("d{}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    fn take_place(&self, serial: &str) -> Result<usize, PodError> {
        let mut places = self.places();
        let free = (0..MOST_DISKS).find(|place| !places.values().any(|it| it == place));
        let free = free.ok_or(PodError::Disks(MOST_DISKS))?;
        places.insert(serial.to_owned(), free);
        Ok(free)
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pod {
    /// Plugs a raw image or block device in as a disk; returns the serial by which the guest finds it.
    ///
    /// # Errors
    /// When there is no room for it, its daemon cannot be started, or the hypervisor refuses.
    pub async fn add_disk(&self, image: &Path, read_only: bool) -> Result<String, PodError> {
        let orders = self.disks.orders.as_ref().ok_or(PodError::Disks(0))?;
        let serial = self.disks.next_serial();
        let place = self.disks.take_place(&serial)?;
        let disk = PodDisk {
            serial: serial.clone(),
            image: image.to_owned(),
            read_only,
        };
        let added = async {
            let device = disk.start(self.daemons())?;
            daemons::wait_until_serves(&device.socket).await?;
            orders.add(&serial, &device, place).await
        };
        if let Err(error) = added.await {
            self.forget_disk(&serial).await;
            return Err(error);
        }
        Ok(serial)
    }

    /// Unplugs a disk of [`add_disk`](Self::add_disk), which nothing in the guest may use any more.
    ///
    /// # Errors
    /// When the guest does not let go of it; its daemon goes all the same.
    pub async fn remove_disk(&self, serial: &str) -> Result<(), PodError> {
        let removed = match &self.disks.orders {
            Some(orders) => orders.remove(serial).await,
            None => Ok(()),
        };
        self.forget_disk(serial).await;
        removed
    }

    async fn forget_disk(&self, serial: &str) {
        self.parts
            .dismiss(&format!("vhost-user-blk-{serial}"))
            .await;
        if let Err(error) = self.directory.remove_state(&format!("blk-{serial}")) {
            tracing::warn!("{}", chain(&error));
        }
        self.disks.places().remove(serial);
    }

    fn daemons(&self) -> Daemons<'_> {
        Daemons {
            parts: &self.parts,
            directory: &self.directory,
            config: &self.configuration,
            reconnects: self.reconnects,
            metrics: None,
        }
    }
}
