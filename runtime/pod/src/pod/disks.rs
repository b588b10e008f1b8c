//! A running pod's disks that come and go.

use std::collections::{BTreeMap, BTreeSet};
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
    /// The serials of those that are to be gone, and that the guest still holds.
    held: Mutex<BTreeSet<String>>,
    /// How many there have been.
    count: AtomicU64,
}

impl LaterDisks {
    /// None yet.
    pub(super) fn new(orders: Option<Orders>) -> Self {
        Self {
            orders,
            places: Mutex::default(),
            held: Mutex::default(),
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

    /// Frees the place of a disk, unless the hypervisor has it still or does not say: it would refuse the next one there.
    async fn free_place(&self, serial: &str) {
        let held = match &self.orders {
            Some(orders) => orders.has(serial).await.unwrap_or(true),
            None => false,
        };
        if held {
            locked(&self.held).insert(serial.to_owned());
        } else {
            locked(&self.held).remove(serial);
            self.places().remove(serial);
        }
    }

    /// Frees the places that the guest has let go of late.
    async fn free_places(&self) {
        let held = locked(&self.held).clone();
        for serial in held {
            self.free_place(&serial).await;
        }
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        locked(&self.places)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pod {
    /// Plugs a raw image or block device in as a disk; returns the serial by which the guest finds it.
    ///
    /// # Errors
    /// When there is no room for it, its daemon cannot be started, or the hypervisor refuses.
    pub async fn add_disk(&self, image: &Path, read_only: bool) -> Result<String, PodError> {
        let orders = self.disks.orders.as_ref().ok_or(PodError::Disks(0))?;
        self.disks.free_places().await;
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
    /// When the guest does not let go of it; its daemon goes all the same, and its place stays taken for as long.
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
        self.disks.free_place(serial).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plug::tests::played;

    #[tokio::test]
    async fn a_place_is_free_when_the_guest_has_let_go() {
        const DONE: &str = "{\"return\": {}}\n";
        const HELD: &str = "{\"return\": [{\"name\": \"d0\"}]}\n";
        const GONE: &str = "{\"return\": [{\"name\": \"d1\"}]}\n";
        let (_folder, orders) = played(&[DONE, HELD, DONE, HELD, DONE, GONE], true).await;
        let disks = LaterDisks::new(Some(orders));
        assert_eq!(disks.take_place("d0").unwrap(), 0);
        disks.free_place("d0").await;
        assert_eq!(disks.take_place("d1").unwrap(), 1, "it is held");
        disks.free_places().await;
        assert_eq!(disks.take_place("d2").unwrap(), 2, "it is held still");
        disks.free_places().await;
        assert_eq!(disks.take_place("d3").unwrap(), 0);
        disks.free_places().await;
    }
}
