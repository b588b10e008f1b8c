//! The disks of one process: added, removed and looked up by name while they are served.

mod open;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use vhost_daemon::boot_id::BootId;
use vhost_daemon::control::{Controlled, Done};
use vhost_daemon::metrics::{Metrics, Registry};
use vhost_daemon::sandbox::seccomp::ThreadFilters;
use vhost_daemon::session::{ServeError, Serving};
use vhost_daemon::shutdown::Shutdown;
use vhost_daemon::worker::PollPolicy;

use crate::control::{Command, DiskStats, Refusal};
use crate::device::ControlledDisk;
use crate::options::{DiskConfig, OptionsError};
pub use open::AddError;
use open::Opened;

/// What all disks of a process share.
pub struct Common {
    /// Where requests in flight are remembered.
    pub state_dir: Option<StateDir>,
    /// Whether a disk goes with its first front end.
    pub once: bool,
    /// Polling of the queues' threads.
    pub poll: PollPolicy,
    /// Where the disks' metrics are shown.
    pub metrics: Arc<Registry>,
    /// Requested when the last disk ends by itself.
    pub shutdown: Arc<Shutdown>,
    /// What the disks' threads are bound to.
    pub filters: Arc<ThreadFilters>,
}

/// Where requests in flight are remembered.
pub struct StateDir {
    path: PathBuf,
    /// Read before the sandbox hides it.
    boot: BootId,
}

impl StateDir {
    /// The directory `path`, during this boot of the host.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let boot = BootId::current();
        Self { path, boot }
    }
}

/// All disks that are being served.
pub struct Disks {
    common: Common,
    table: Mutex<Table>,
    /// One that was being removed is gone.
    gone: Condvar,
}

#[derive(Default)]
struct Table {
    disks: BTreeMap<String, Served>,
    /// How many are in no table any more and not gone yet: their queues are being drained.
    leaving: usize,
    /// The process ends: nothing is added any more.
    closed: bool,
}

/// One disk.
struct Served {
    disk: Arc<dyn ControlledDisk>,
    serving: Serving,
    metrics: Arc<Metrics>,
    /// Its image, as it was named.
    source: String,
    /// Its socket, if it is not inherited.
    socket: Option<PathBuf>,
}

/// Disks whose images and sockets are open.
pub struct OpenedDisks(Vec<Opened>);

impl OpenedDisks {
    /// Their sockets' files.
    pub fn sockets(&self) -> impl Iterator<Item = PathBuf> {
        self.0.iter().filter_map(|disk| disk.socket.clone())
    }
}

impl Disks {
    /// None yet.
    pub fn new(common: Common) -> Arc<Self> {
        Arc::new(Self {
            common,
            table: Mutex::default(),
            gone: Condvar::new(),
        })
    }

    /// Opens disks that [`serve_all`](Self::serve_all) is to serve.
    ///
    /// # Errors
    /// See [`AddError`].
    pub fn open_all(&self, configs: Vec<DiskConfig>) -> Result<OpenedDisks, AddError> {
        let mut names = BTreeSet::new();
        // Before anything of another disk of that name is touched.
        for DiskConfig { name, .. } in &configs {
            if !names.insert(name.clone()) {
                return Err(AddError::NameTaken(name.clone()));
            }
        }
        let open = |config| open::open(config, &self.common);
        Ok(OpenedDisks(
            configs.into_iter().map(open).collect::<Result<_, _>>()?,
        ))
    }

    /// Serves disks from now on.
    ///
    /// # Errors
    /// See [`AddError`].
    pub fn serve_all(self: &Arc<Self>, opened: OpenedDisks) -> Result<(), AddError> {
        opened.0.into_iter().try_for_each(|disk| self.serve(disk))
    }

    /// Opens a disk and serves it from now on.
    ///
    /// # Errors
    /// See [`AddError`].
    pub fn add(self: &Arc<Self>, config: DiskConfig) -> Result<(), AddError> {
        // Before anything of another disk of that name is touched.
        self.table().takes(&config.name)?;
        self.serve(open::open(config, &self.common)?)
    }

    fn serve(self: &Arc<Self>, opened: Opened) -> Result<(), AddError> {
        let name = opened.name.clone();
        let mut table = self.table();
        table.takes(&name)?;
        let served = opened.serve(self)?;
        self.common.metrics.add(served.metrics.clone());
        table.disks.insert(name, served);
        Ok(())
    }

    /// Ends every disk: their connections end, their queues are drained, their sockets go. Waits for those that are being
    /// removed, too.
    pub fn close(&self) {
        let disks = {
            let mut table = self.table();
            table.closed = true;
            std::mem::take(&mut table.disks)
        };
        disks.values().for_each(|disk| disk.serving.request_stop());
        disks.into_values().for_each(|disk| disk.serving.stop());
        let leaving = |table: &mut Table| table.leaving > 0;
        drop(self.gone.wait_while(self.table(), leaving));
    }

    fn remove(&self, name: Option<&str>) -> Result<(), Refusal> {
        let served = {
            let mut table = self.table();
            let name = table.find(name)?.0.clone();
            let served = table.disks.remove(&name).ok_or(Refusal::NoDisk)?;
            table.leaving += 1;
            served
        };
        served.serving.stop();
        self.common.metrics.remove(&served.metrics);
        self.table().leaving -= 1;
        self.gone.notify_all();
        Ok(())
    }

    /// The thread of the disk with these metrics has come to its end.
    fn ended(&self, name: &str, metrics: &Arc<Metrics>, result: Result<(), ServeError>) {
        if let Err(error) = result {
            let error: &dyn std::error::Error = &error;
            tracing::error!(disk = name, error, "the disk is served no more");
        }
        let mut table = self.table();
        let named = table.disks.get(name);
        // Whoever removed it wants no more of it, and may have given its name to another.
        if !named.is_some_and(|served| Arc::ptr_eq(&served.metrics, metrics)) {
            return;
        }
        table.disks.remove(name);
        self.common.metrics.remove(metrics);
        if table.disks.is_empty() {
            self.common.shutdown.request();
        }
    }

    /// Does `action` on the disk `name`, or the only one; then shows it.
    fn on(
        &self,
        name: Option<&str>,
        action: impl FnOnce(&dyn ControlledDisk) -> Result<(), Refusal>,
    ) -> Result<Vec<DiskStats>, Refusal> {
        let table = self.table();
        let (name, served) = table.find(name)?;
        action(&*served.disk)?;
        Ok(vec![served.stats(name)])
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Whether a disk of that name could be added.
    fn takes(&self, name: &str) -> Result<(), AddError> {
        if self.closed {
            Err(AddError::Closing)
        } else if self.disks.contains_key(name) {
            Err(AddError::NameTaken(name.to_owned()))
        } else {
            Ok(())
        }
    }

    fn find(&self, name: Option<&str>) -> Result<(&String, &Served), Refusal> {
        match name {
            Some(name) => self
                .disks
                .get_key_value(name)
                .ok_or_else(|| Refusal::UnknownDisk(name.to_owned())),
            None if self.disks.len() > 1 => Err(Refusal::WhichDisk(
                self.disks.keys().cloned().collect::<Vec<_>>().join(", "),
            )),
            None => self.disks.first_key_value().ok_or(Refusal::NoDisk),
        }
    }
}

impl Served {
    fn stats(&self, name: &str) -> DiskStats {
        DiskStats {
            disk: name.to_owned(),
            source: self.source.clone(),
            socket: self.socket.clone(),
            state: self.disk.state(),
            bytes_read: self.metrics.sum(|queue| queue.bytes_in.get()),
            bytes_written: self.metrics.sum(|queue| queue.bytes_out.get()),
            errors: self.metrics.sum(|queue| queue.errors.get()),
            in_flight: self.metrics.sum(|queue| queue.in_flight.get()),
        }
    }
}

impl Disks {
    fn obey(self: &Arc<Self>, command: Command) -> Result<Vec<DiskStats>, Refusal> {
        match command {
            Command::Stats { disk: None } => {
                let table = self.table();
                Ok(table.disks.iter().map(|(name, d)| d.stats(name)).collect())
            }
            Command::Stats { disk } => self.on(disk.as_deref(), |_| Ok(())),
            Command::Resize { disk } => {
                self.on(disk.as_deref(), |disk| disk.resize().map_err(Refusal::from))
            }
            Command::Limit(limit) => self.on(limit.disk.as_deref(), |disk| {
                disk.limit(limit.rates());
                Ok(())
            }),
            Command::Add { disk } => {
                if disk.fd.is_some() {
                    return Err(OptionsError::FdWhileRunning.into());
                }
                let config = disk.validate()?;
                let name = config.name.clone();
                self.add(config)?;
                self.on(Some(&name), |_| Ok(()))
            }
            Command::Remove { disk } => self.remove(disk.as_deref()).map(|()| Vec::new()),
        }
    }
}

impl Controlled for Disks {
    type Command = Command;
    type Report = Vec<DiskStats>;
    type Refusal = Refusal;

    fn carry_out(self: &Arc<Self>, command: Command) -> Result<Done<Vec<DiskStats>>, Refusal> {
        self.obey(command).map(Done::from)
    }
}
