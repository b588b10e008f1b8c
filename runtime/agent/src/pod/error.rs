//! Why a request was not done, as the host is told.

use ttrpc::{Code, get_status};

/// A ttrpc status: its code says whose fault it was, its message what and why.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No container of this name.
    #[error("there is no container {0:?}")]
    NoContainer(String),
    /// No such process in a container that is there.
    #[error("container {0:?} has no process {1:?}")]
    NoProcess(String, String),
    /// Such a process, which is no more.
    #[error("{0} has ended")]
    Ended(String),
    /// It is there already.
    #[error("{0} is there already")]
    Exists(String),
    /// The request makes no sense: which field, and why.
    #[error("{field}: {why}")]
    Invalid {
        /// The request's field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Not in this state.
    #[error("{0}")]
    State(String),
    /// The guest could not.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// What a request comes to.
pub(super) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(super) fn invalid(field: &'static str, why: impl ToString) -> Self {
        let why = why.to_string();
        Self::Invalid { field, why }
    }

    fn code(&self) -> Code {
        match self {
            Self::NoContainer(_) | Self::NoProcess(..) | Self::Ended(_) => Code::NOT_FOUND,
            Self::Exists(_) => Code::ALREADY_EXISTS,
            Self::Invalid { .. } => Code::INVALID_ARGUMENT,
            Self::State(_) => Code::FAILED_PRECONDITION,
            Self::Failed(_) => Code::INTERNAL,
        }
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(get_status(error.code(), error))
    }
}
