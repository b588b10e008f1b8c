//! A running pod's disks that come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::time::{sleep, timeout};

use super::Pod;
use crate::daemons::{self, Daemons};
use crate::disk::PodDisk;
use crate::parts::{PartEnd, Role};
use crate::plug::{MOST_DISKS, Orders};
use crate::{PodError, chain, event};

/// Between two who are hung up on.
const BREATH: Duration = Duration::from_millis(100);

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
        if let Err(error) = self.plug_in(orders, &disk, place).await {
            self.forget_disk(&serial).await;
            return Err(error);
        }
        let role = daemons::role(self.reconnects.disks);
        self.parts.accept(&PodDisk::part(&serial), role);
        Ok(serial)
    }

    /// Starts a disk's daemon and plugs in what it serves. A daemon that ends before is this disk's error; the machine
    /// and its containers go on.
    async fn plug_in(&self, orders: &Orders, disk: &PodDisk, place: usize) -> Result<(), PodError> {
        let device = disk.start(self.daemons(), Role::Probation)?;
        let part = PodDisk::part(&disk.serial);
        let mut end = pin!(self.parts.end_of(&part));
        tokio::select! {
            end = &mut end => return Err(self.last_words(&end).await),
            serves = daemons::wait_until_serves(&device.socket) => serves?,
        }
        let mut plugged = pin!(orders.add(&disk.serial, &device, place));
        let (end, added) = tokio::select! {
            added = &mut plugged => (timeout(event::ENDS_TOGETHER, end).await.ok(), added),
            end = &mut end => (Some(end), refused(&device.socket, plugged).await),
        };
        match (added, end) {
            (Err(_), Some(end)) => Err(self.last_words(&end).await),
            // Where the daemon has ended it is started again, for the machine has the disk.
            (added, _) => added,
        }
    }

    /// Why a daemon ended. Its log may be written a moment later.
    async fn last_words(&self, end: &PartEnd) -> PodError {
        sleep(event::ENDS_TOGETHER).await;
        self.parts.obituary(end)
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
        self.parts.dismiss(&PodDisk::part(serial)).await;
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

/// What an order comes to whose daemon has ended. A hypervisor that waits for the daemon to come again (QEMU, and its
/// machine stands still meanwhile) finds somebody who hangs up.
async fn refused<T>(socket: &Path, order: impl Future<Output = T>) -> T {
    tokio::select! {
        done = order => done,
        never = hang_up(socket) => match never {},
    }
}

async fn hang_up(socket: &Path) -> Infallible {
    // It may be gone, or never have been there.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket);
    loop {
        match &listener {
            Ok(listener) => drop(listener.accept().await),
            Err(_) => std::future::pending().await,
        }
        sleep(BREATH).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;
    use std::time::Instant;

    use ringside_config::Config;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;
    use tokio::sync::mpsc::error::TryRecvError;

    use super::*;
    use crate::plug::tests::played as orders;
    use crate::pod::played;

    /// An agent to which nothing happens.
    struct Quiet;

    #[async_trait::async_trait]
    impl played::Service for Quiet {
        async fn events(
            &self,
            _: &ttrpc::asynchronous::TtrpcContext,
            _: ringside_protocol::agent::EventsRequest,
        ) -> ttrpc::Result<ringside_protocol::agent::EventsResponse> {
            std::future::pending().await
        }
    }

    /// A pod whose block daemon is this script.
    async fn pod(root: &Path, script: &str, orders: Orders) -> played::Played {
        let program = root.join("blk");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let mut config = Config::default();
        config.programs.vhost_user_blk = Some(program);
        let pod = played::with_disks(root, Arc::new(Quiet), config, Some(orders)).await;
        pod.unwrap()
    }

    #[tokio::test]
    async fn a_disk_whose_daemon_does_not_start_is_an_error_and_the_pod_goes_on() {
        const NONE: &str = "HTTP/1.1 200 OK\r\n\r\n[]";
        let (_folder, orders) = orders(&[NONE, NONE], false).await;
        let root = tempfile::tempdir().unwrap();
        let starts = root.path().join("starts");
        let script = format!(
            "echo >> {}; echo another has it locked >&2; exit 1",
            starts.display()
        );
        let mut played = pod(root.path(), &script, orders).await;
        let start = Instant::now();
        for _ in 0..2 {
            let refused = played.pod.add_disk(Path::new("/dev/null"), false).await;
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("another has it locked"), "{error}");
        }
        assert!(start.elapsed().as_secs() < 15, "{:?}", start.elapsed());
        sleep(BREATH * 5).await;
        assert_eq!(played.events.try_recv(), Err(TryRecvError::Empty));
        assert!(played.pod.disks.places().is_empty(), "its place is free");
        let starts = std::fs::read(&starts).unwrap().len();
        assert_eq!(starts, 2, "one for each disk");
        played.pod.kill().await;
    }

    #[tokio::test]
    async fn who_waits_for_a_daemon_that_has_ended_is_hung_up_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let order = async {
            let mut daemon = loop {
                match UnixStream::connect(&path).await {
                    Ok(daemon) => break daemon,
                    Err(_) => sleep(BREATH / 10).await,
                }
            };
            daemon.read(&mut [0]).await.unwrap_or_default()
        };
        assert_eq!(refused(&path, order).await, 0);
    }

    #[tokio::test]
    async fn a_place_is_free_when_the_guest_has_let_go() {
        const DONE: &str = "{\"return\": {}}\n";
        const HELD: &str = "{\"return\": [{\"name\": \"d0\"}]}\n";
        const GONE: &str = "{\"return\": [{\"name\": \"d1\"}]}\n";
        let (_folder, orders) = orders(&[DONE, HELD, DONE, HELD, DONE, GONE], true).await;
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
