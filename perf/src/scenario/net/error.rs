//! Why a run or a turn failed.

use std::io;
use std::time::Duration;

use crate::interrupt::Interrupted;
use crate::measure::CountError;
use crate::scenario::Nothing;

/// The run cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory cannot be made.
    #[error("cannot make a scratch directory")]
    Scratch(#[source] io::Error),
    /// The network of the run.
    #[error(transparent)]
    Network(#[from] lab::netns::Error),
    /// A socket that sends frames to a tap.
    #[error("frames cannot be sent to the tap")]
    Generator(#[source] io::Error),
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
    FrontEnd(#[from] lab::frontend::Error),
    #[error(transparent)]
    Ground(#[from] Error),
    #[error(transparent)]
    Count(#[from] CountError),
    #[error("the daemon has ended")]
    Gone(#[source] io::Error),
    #[error("the tap fails")]
    Tap(#[source] io::Error),
    #[error("{program} cannot be run")]
    Run {
        program: &'static str,
        source: io::Error,
    },
    #[error("{program}: {said}")]
    Tool { program: &'static str, said: String },
    #[error("no frame passed in {0:?}")]
    Stuck(Duration),
    #[error("the daemon does not offer what the load needs: {0}")]
    Lacks(&'static str),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl TurnError {
    /// Whether the user asked to stop: then the run ends, not only the turn.
    pub(crate) fn interrupted(&self) -> Option<Interrupted> {
        match self {
            Self::Interrupted(it) | Self::Ground(Error::Interrupted(it)) => Some(*it),
            _ => None,
        }
    }

    /// The message with its causes, for a cell of the report.
    pub(crate) fn told(&self) -> String {
        crate::report::with_causes(self)
    }
}
