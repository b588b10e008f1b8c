//! What can go wrong with an OCI verb.

use std::io;
use std::path::{Path, PathBuf};

use containerd_shim_protos::ttrpc;
use ringside_pod::{PodError, programs::ProgramError};

/// Why a verb could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file or directory.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A call of the system's that names no file.
    #[error("cannot {doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A name that cannot be a file's.
    #[error("{0:?} names no container: letters, digits, '.', '_' and '-', not '.' first")]
    Name(String),
    /// A name that is taken.
    #[error("container {0} exists")]
    Exists(String),
    /// A name that is not taken.
    #[error("container {0} does not exist")]
    NoContainer(String),
    /// The bundle, its specification, or a hook.
    #[error(transparent)]
    Pod(#[from] PodError),
    /// No shim.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The specification cannot be carried out.
    #[error("config.json of container {id}")]
    Spec {
        /// The container.
        id: String,
        /// Why.
        source: ringside_pod::spec::SpecError,
    },
    /// A file of the state's that does not hold what it should.
    #[error("cannot understand {}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Options that do not fit together, or not the container.
    #[error("{0}")]
    Usage(String),
    /// A container in a state that does not allow it.
    #[error("cannot {verb} container {id}: it is {status}")]
    Status {
        /// What was asked.
        verb: &'static str,
        /// The container.
        id: String,
        /// What it is.
        status: &'static str,
    },
    /// The shim refused.
    #[error("{0}")]
    Refused(String),
    /// The shim knows no such container or process, or none that has not ended.
    #[error("{0}")]
    NotThere(String),
    /// The shim does not answer.
    #[error("the shim of container {id} does not answer")]
    NoAnswer {
        /// The container.
        id: String,
        /// Why.
        source: ttrpc::Error,
    },
    /// The process that stands for it ended early.
    #[error("{0}")]
    Holder(String),
}

impl OciError {
    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }

    pub(super) fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            doing,
            source: source.into(),
        }
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }
}
