//! Why a run or a turn failed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::interrupt::Interrupted;
use crate::measure::CountError;
use crate::peer::fio::FioError;
use crate::scenario::Nothing;

/// The run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory or image cannot be made.
    #[error("cannot make {}", path.display())]
    Image {
        /// The directory or file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The user asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The options leave nothing to measure.
    #[error(transparent)]
    Nothing(#[from] Nothing),
}

/// A turn gave no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnError {
    #[error(transparent)]
    Drive(#[from] DriveError),
    #[error(transparent)]
    Fio(#[from] FioError),
    #[error(transparent)]
    Count(#[from] CountError),
    #[error("the daemon has ended")]
    Gone(#[source] io::Error),
}

/// The driver got no further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriveError {
    #[error("libblkio: {}", .0.message())]
    Blkio(#[from] blkio::Error),
    #[error("the disk has only {bytes} bytes")]
    TooSmall { bytes: u64 },
    #[error("a request failed")]
    Request(#[source] io::Error),
    #[error("no request completed in {0:?}")]
    Lost(Duration),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl From<Interrupted> for TurnError {
    fn from(interrupted: Interrupted) -> Self {
        DriveError::from(interrupted).into()
    }
}

impl TurnError {
    /// Whether the user asked to stop: then the run ends, not only the turn.
    pub(crate) fn interrupted(&self) -> Option<Interrupted> {
        match self {
            Self::Drive(DriveError::Interrupted(it)) | Self::Fio(FioError::Interrupted(it)) => {
                Some(*it)
            }
            _ => None,
        }
    }

    /// The message with its causes, for a cell of the report.
    pub(crate) fn told(&self) -> String {
        crate::report::with_causes(self)
    }
}
