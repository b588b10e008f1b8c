//! What can go wrong on the bridge.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::{frontend, need};

/// The result of a bridge's operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a bridge cannot be, or broke.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host lacks something.
    #[error(transparent)]
    Missing(#[from] need::Missing),
    /// Between the bridge and the daemon.
    #[error(transparent)]
    FrontEnd(#[from] frontend::Error),
    /// The daemon lacks what a bridge needs.
    #[error("the daemon does not offer {0}")]
    NotOffered(&'static str),
    /// The daemon has fewer queues.
    #[error("the daemon has {offered} request queues, not {wanted}")]
    TooFewQueues {
        /// Asked for.
        wanted: usize,
        /// There.
        offered: u64,
    },
    /// A system call failed.
    #[error("{what}")]
    Os {
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel does not mount.
    #[error("cannot mount on {}", directory.display())]
    Mount {
        /// Where.
        directory: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel does not unmount.
    #[error("cannot unmount {}", directory.display())]
    Unmount {
        /// What.
        directory: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The daemon lets the kernel wait.
    #[error("{} was not unmounted within {timeout:?}: the connection was cut; the kernel waited in {waited_in}", directory.display())]
    NotUnmounted {
        /// What.
        directory: PathBuf,
        /// How long it was waited for.
        timeout: Duration,
        /// The kernel's functions (proc(5), `/proc/PID/task/TID/stack`), innermost first.
        waited_in: String,
    },
    /// The daemon says nothing.
    #[error("no answer to FUSE_INIT within {0:?}")]
    NoInit(Duration),
    /// The daemon refuses the kernel.
    #[error("FUSE_INIT was answered with an error")]
    InitRefused(#[source] io::Error),
    /// The daemon closed its socket or ended.
    #[error("the daemon has gone while it was mounted")]
    DaemonGone,
    /// The daemon's reply is none; the program that asked got `EIO`.
    #[error("the reply to a request {opcode} of {asked} bytes is wrong: {why}")]
    BadReply {
        /// Operation (`enum fuse_opcode`).
        opcode: u32,
        /// Length of the request.
        asked: usize,
        /// What is wrong.
        why: String,
    },
    /// Requests that the daemon never answered.
    #[error("{requests} requests were not answered within {timeout:?}")]
    Unanswered {
        /// How many.
        requests: usize,
        /// After the end of the mount.
        timeout: Duration,
    },
    /// A bug of the bridge's.
    #[error("a thread of the bridge panicked; its message is on standard error")]
    Panicked,
}

impl Error {
    pub(super) fn os(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Os { what, source }
    }
}
