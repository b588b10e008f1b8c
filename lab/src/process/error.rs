//! Why a daemon did not do what a test wanted.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a daemon could not be started or did not do what was waited for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The workspace's binary was not built.
    #[error("{} is not built: run `cargo build` for its package first", path.display())]
    NotBuilt {
        /// Where it would be.
        path: PathBuf,
    },
    /// It ended when it should have run.
    #[error("{name} ended with {status} before {awaited}; it said:\n{stderr}")]
    Ended {
        /// The program.
        name: String,
        /// What was waited for.
        awaited: String,
        /// How it ended.
        status: ExitStatus,
        /// Its standard error.
        stderr: String,
    },
    /// It did not do in time what was waited for.
    #[error("{name}: no {awaited} within {timeout:?}; it said:\n{stderr}")]
    TimedOut {
        /// The program.
        name: String,
        /// What was waited for.
        awaited: String,
        /// How long.
        timeout: Duration,
        /// Its standard error so far.
        stderr: String,
    },
    /// A system call about the process failed.
    #[error("{name}: cannot {what}")]
    Os {
        /// The program.
        name: String,
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}
