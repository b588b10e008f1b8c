//! Why a run or a turn failed.

use std::io;
use std::path::PathBuf;

use lab::bridge;
use lab::need::Missing;
use lab::process::Error as ProcessError;

use crate::interrupt::Interrupted;
use crate::measure::CountError;
use crate::peer::fio::FioError;
use crate::peer::{BuildError, StartError};
use crate::scenario::Nothing;

/// The run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that everything here needs.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A mount namespace cannot be had.
    #[error("cannot make a mount namespace")]
    Namespace(#[source] io::Error),
    /// A directory or file cannot be made.
    #[error("cannot make {}", path.display())]
    Place {
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
pub(in crate::scenario) enum TurnError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("bridge")]
    Bridge(#[from] bridge::Error),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Count(#[from] CountError),
    #[error("the daemon has ended")]
    Gone(#[source] io::Error),
    #[error("nothing came to an end within {0} s")]
    Hangs(u64),
}

/// A load was not carried out.
#[derive(Debug, thiserror::Error)]
pub(in crate::scenario) enum LoadError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error(transparent)]
    Fio(#[from] FioError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{program} ended with {status}: {said}")]
    Failed {
        program: &'static str,
        status: std::process::ExitStatus,
        said: String,
    },
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl From<Interrupted> for TurnError {
    fn from(interrupted: Interrupted) -> Self {
        LoadError::from(interrupted).into()
    }
}

impl TurnError {
    /// Whether the user asked to stop: then the run ends, not only the turn.
    pub(super) fn interrupted(&self) -> Option<Interrupted> {
        match self {
            Self::Load(LoadError::Interrupted(it) | LoadError::Fio(FioError::Interrupted(it))) => {
                Some(*it)
            }
            _ => None,
        }
    }
}
