//! Where ports keep what outlives the process (`--state-dir`).

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use vhost_daemon::boot_id::BootId;
use vhost_daemon::queue::{InFlightFile, LogError};

use crate::device::PortFiles;
use crate::driver::DriverFile;

/// The directory.
pub struct StateDir {
    path: PathBuf,
    /// Read before the sandbox hides it.
    boot: BootId,
}

/// A state directory that cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file of the receive buffers.
    #[error(transparent)]
    InFlight(#[from] LogError),
    /// The file of what the driver has set.
    #[error("cannot use state file {path}")]
    Driver {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl StateDir {
    /// The directory `path`, during this boot of the host.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let boot = BootId::current();
        Self { path, boot }
    }

    /// The files of the port `name`, of so many `lanes` with queues of at most `queue_size` entries.
    ///
    /// # Errors
    /// When they cannot be used, or another daemon uses them.
    pub(super) fn files(
        &self,
        name: &str,
        lanes: usize,
        queue_size: u16,
    ) -> Result<PortFiles, StateError> {
        let in_flight = self.path.join(format!("{name}.in-flight"));
        let driver = self.path.join(format!("{name}.driver"));
        Ok(PortFiles {
            in_flight: InFlightFile::open(&in_flight, self.boot, lanes, queue_size)?,
            driver: DriverFile::open(&driver, self.boot).map_err(|source| StateError::Driver {
                path: driver,
                source,
            })?,
        })
    }
}
