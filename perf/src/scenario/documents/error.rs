use std::io;
use std::path::PathBuf;

use crate::interrupt::Interrupted;
use crate::scenario::Nothing;

/// Why a run, or a turn of it, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The options leave nothing to measure.
    #[error(transparent)]
    Nothing(#[from] Nothing),
    /// No kernel, or no package.
    #[error(transparent)]
    Image(#[from] guest_image::Error),
    /// The host lacks something.
    #[error(transparent)]
    Missing(#[from] lab::need::Missing),
    /// The guest.
    #[error(transparent)]
    Guest(#[from] lab::guest::Error),
    /// A file that is shared.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// An order that ended with another exit code.
    #[error("the guest's `{order}` ended with {code}: {said}")]
    Order {
        /// The order.
        order: String,
        /// Its exit code.
        code: String,
        /// What it said.
        said: String,
    },
    /// No figure in what a program said.
    #[error("{load} gave no figure, but said: {said}")]
    Said {
        /// The load.
        load: String,
        /// What the program said.
        said: String,
    },
    /// A process ended.
    #[error("cannot read what a process used")]
    Measure(#[source] io::Error),
    /// A program for the disk images.
    #[error("{program} failed: {said}")]
    Tool {
        /// The program.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// `--seconds`.
    #[error("--seconds {0} is not between 0.05 and 600")]
    Seconds(f64),
}
