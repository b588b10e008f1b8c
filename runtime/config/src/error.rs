//! What can be wrong with a configuration.

use std::io;
use std::path::PathBuf;

use crate::Origin;

/// Why a configuration cannot be used. The message begins with the place: `file:line`, or the annotation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory that cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// It.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that is far too long to be a configuration.
    #[error("{0} is longer than a configuration can be (1 MiB)")]
    Long(PathBuf),
    /// Not TOML.
    #[error("{path}:{line}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A key or table that there is not.
    #[error("{origin}: there is no {what} '{name}'{hint}")]
    Unknown {
        /// Where it is written.
        origin: Origin,
        /// A key or a table.
        what: &'static str,
        /// What is written.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// A value that cannot be.
    #[error("{origin}: {key} {reason}")]
    Value {
        /// Where it is written.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// What it must be.
        reason: String,
    },
    /// A pod wants to change what it may not.
    #[error("{origin}: a pod may not change {key}{hint}")]
    NotAllowed {
        /// The annotation.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// What to do.
        hint: &'static str,
    },
}
