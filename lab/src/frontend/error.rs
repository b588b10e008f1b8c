//! What can go wrong between the front end and a daemon.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The result of a front-end operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a front-end operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No daemon took the connection.
    #[error("cannot connect to the vhost-user socket {path} within {timeout:?}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// How long it was tried.
        timeout: Duration,
        /// The last attempt's failure.
        source: io::Error,
    },
    /// The daemon refused a vhost-user request or closed the connection over it.
    #[error("vhost-user request {request} failed")]
    Request {
        /// The request's name in the vhost-user specification.
        request: &'static str,
        /// What the `vhost` crate reports.
        source: vhost::Error,
    },
    /// The daemon did not answer a vhost-user request.
    #[error("no answer to vhost-user request {request} within {timeout:?}, connection shut down")]
    NoAnswer {
        /// The request's name in the vhost-user specification.
        request: &'static str,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The front end was used out of order.
    #[error("{operation} needs {needed} first")]
    OutOfOrder {
        /// What was asked for.
        operation: &'static str,
        /// What has to come before it.
        needed: &'static str,
    },
    /// A range is not in guest memory.
    #[error("guest memory has nothing at {address:#x} with length {len}")]
    Memory {
        /// Guest physical address.
        address: u64,
        /// Length in bytes.
        len: usize,
        /// What vm-memory reports.
        source: vm_memory::GuestMemoryError,
    },
    /// Guest memory could not be made.
    #[error("cannot make guest memory")]
    MakeMemory(#[source] io::Error),
    /// No region has room for an allocation.
    #[error("guest memory has no room for {len} bytes aligned to {align}")]
    OutOfMemory {
        /// Bytes asked for.
        len: usize,
        /// Alignment asked for.
        align: usize,
    },
    /// More descriptors are wanted than are free.
    #[error("queue {queue} has {free} free descriptors, the chain needs {needed}")]
    QueueFull {
        /// The queue's index.
        queue: usize,
        /// Free descriptors.
        free: usize,
        /// Descriptors of the chain.
        needed: usize,
    },
    /// A chain, buffer or queue has a size that the ring cannot express.
    #[error("{what} of {len} does not fit: {limit}")]
    BadSize {
        /// Which thing.
        what: &'static str,
        /// Its size.
        len: usize,
        /// The rule that it breaks.
        limit: &'static str,
    },
    /// The device completed something that was not in flight.
    #[error("queue {queue}: the device returned descriptor {id}, which is no head in flight")]
    UnknownUsed {
        /// The queue's index.
        queue: usize,
        /// The id in the used ring.
        id: u32,
    },
    /// The device's used index is ahead of everything that was made available.
    #[error("queue {queue}: used index moved by {moved} with {in_flight} chains in flight")]
    UsedOverrun {
        /// The queue's index.
        queue: usize,
        /// New entries according to the used index.
        moved: u16,
        /// Chains in flight.
        in_flight: usize,
    },
    /// Entries are in the used ring but no interrupt came.
    #[error("queue {queue}: {pending} used entries, but no interrupt within {timeout:?}")]
    InterruptLost {
        /// The queue's index.
        queue: usize,
        /// Entries that nobody was told of.
        pending: u16,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// A request was not completed.
    #[error("queue {queue}: request not completed within {timeout:?}")]
    NotCompleted {
        /// The queue's index.
        queue: usize,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// A reply cannot be what the protocol says.
    #[error("queue {queue}: malformed reply: {why}")]
    BadReply {
        /// The queue's index.
        queue: usize,
        /// What is wrong with it.
        why: String,
    },
    /// A system call on a descriptor of the front end failed.
    #[error("{what}")]
    Os {
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn os(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Os { what, source }
    }
}
