//! From a disk's description to a thread that serves it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use vhost_daemon::metrics::Metrics;
use vhost_daemon::queue::LogError;
use vhost_daemon::session::{ServeError, Server, Service, Serving};

use super::{Common, Disks, Served};
use crate::config_space::{BlockSizeError, Geometry};
use crate::device::{BlockDevice, ControlledDisk};
use crate::options::{DiskConfig, Medium};
use crate::storage::qcow2::{Qcow2Error, Qcow2Image, Qcow2Options};
use crate::storage::{NullStorage, OpenError, RawFile, Storage};

/// A disk cannot be added.
#[derive(Debug, Error)]
pub enum AddError {
    /// Another disk has its name.
    #[error("there is a disk '{0}' already: give each its own name=")]
    NameTaken(String),
    /// Too late.
    #[error("the daemon is about to stop")]
    Closing,
    /// The image.
    #[error(transparent)]
    Image(#[from] OpenError),
    /// The qcow2 image, or one that it stands on.
    #[error(transparent)]
    Qcow2(#[from] Qcow2Error),
    /// The image does not tell its size.
    #[error("the disk's size cannot be read")]
    Capacity(#[source] io::Error),
    /// The state directory.
    #[error("--state-dir cannot be used")]
    State(#[source] LogError),
    /// The block size asked for does not do.
    #[error(transparent)]
    BlockSize(#[from] BlockSizeError),
    /// The socket.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The thread.
    #[error("the disk's thread cannot be started")]
    Thread(#[source] io::Error),
}

/// A disk whose image and socket are open.
pub(super) struct Opened {
    pub(super) name: String,
    source: String,
    pub(super) socket: Option<PathBuf>,
    disk: Arc<dyn ControlledDisk>,
    metrics: Arc<Metrics>,
    start: Box<dyn FnOnce(Ended) -> io::Result<Serving>>,
}

type Ended = Box<dyn FnOnce(Result<(), ServeError>) + Send>;

/// Opens what `config` names.
pub(super) fn open(config: DiskConfig, common: &Common) -> Result<Opened, AddError> {
    match &config.medium {
        Medium::Raw(image, options) => {
            let storage = RawFile::open(image, *options)?;
            open_on(storage, config, common)
        }
        Medium::Qcow2(image, file, backing) => {
            let options = Qcow2Options {
                file: *file,
                backing: *backing,
                outlive_process: common.state_dir.is_some(),
            };
            let storage = Qcow2Image::open(image, options)?;
            open_on(storage, config, common)
        }
        Medium::Null(capacity) => {
            let capacity = *capacity;
            open_on(NullStorage { capacity }, config, common)
        }
    }
}

fn open_on<S: Storage>(
    storage: S,
    config: DiskConfig,
    common: &Common,
) -> Result<Opened, AddError> {
    let metrics = Arc::new(Metrics::of_device("disk", &config.name));
    let geometry = Geometry::choose(config.block_size, storage.alignment())?;
    let mut device = BlockDevice::new(storage, geometry, config.serial, config.queues, &metrics)
        .map_err(AddError::Capacity)?;
    if let Some(directory) = &common.state_dir {
        let file = directory.path.join(format!("{}.in-flight", config.name));
        device
            .remember_in(&file, directory.boot)
            .map_err(AddError::State)?;
    }
    device.announce(&config.name, &config.medium.source());
    let device = Arc::new(device);
    let socket = config.endpoint.path();
    let service = Service {
        endpoint: config.endpoint,
        once: common.once,
        poll: common.poll,
        metrics: metrics.clone(),
    };
    let server = Server::open(&device, service)?.with_filters(common.filters.clone());
    Ok(Opened {
        name: config.name,
        source: config.medium.source(),
        socket,
        disk: device,
        metrics,
        start: Box::new(|ended| Serving::start(server, ended)),
    })
}

impl Opened {
    /// Serves it from a thread of its own, which tells `disks` when it ends.
    pub(super) fn serve(self, disks: &Arc<Disks>) -> Result<Served, AddError> {
        let (disks, name) = (Arc::downgrade(disks), self.name);
        let metrics = self.metrics.clone();
        let ended = Box::new(move |result| {
            if let Some(disks) = disks.upgrade() {
                disks.ended(&name, &metrics, result);
            }
        });
        let serving = (self.start)(ended).map_err(AddError::Thread)?;
        Ok(Served {
            disk: self.disk,
            serving,
            metrics: self.metrics,
            source: self.source,
            socket: self.socket,
        })
    }
}
