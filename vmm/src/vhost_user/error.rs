use std::io;

use thiserror::Error;

/// Why a daemon cannot serve a device.
#[derive(Debug, Error)]
pub enum FrontEndError {
    /// Nobody listens on the socket.
    #[error("nobody listens there; start the daemon first")]
    Connect(#[source] io::Error),
    /// The connection ended.
    #[error("it closed the connection")]
    Gone,
    /// The daemon does not answer as the protocol says.
    #[error("the daemon did not {step}: {source}")]
    Protocol {
        /// What was asked of it.
        step: &'static str,
        /// What went wrong, in the library's words.
        source: vhost::Error,
    },
    /// A feature without which there is no device.
    #[error("the daemon does not offer {0}")]
    Missing(&'static str),
    /// Another daemon than before, which cannot go on where the first one was.
    #[error("the daemon that came back lacks features {0:#x} that the guest uses")]
    Features(u64),
    /// Fewer queues than were asked for.
    #[error("queues={wanted}: the daemon serves {most} in all, and {needed} are needed")]
    Queues {
        /// What was asked for.
        wanted: u16,
        /// What the device then has.
        needed: usize,
        /// What the daemon has.
        most: u64,
    },
    /// Not as many pairs of queues as the daemon's, which has its control queue behind its own.
    #[error(
        "queues={wanted}: the daemon has its control queue behind {served} pairs; give queues={served}"
    )]
    Pairs {
        /// What was asked for.
        wanted: u16,
        /// What the daemon has.
        served: u16,
    },
    /// The daemon tells no configuration, and the options do not either.
    #[error("the daemon does not tell its {0}, so it must be given: {0}=")]
    Unknown(&'static str),
    /// The guest put a queue where there is no memory.
    #[error("queue {0} is not in the guest's memory")]
    QueueAddress(usize),
    /// The library does not take our memory.
    #[error("the guest's memory cannot be shared: {0}")]
    Memory(vhost::Error),
    /// A descriptor or a thread is missing.
    #[error("no thread or descriptor for the device")]
    Thread(#[from] io::Error),
}

/// Names what was asked of the daemon.
pub(super) fn failed(step: &'static str) -> impl FnOnce(vhost::Error) -> FrontEndError {
    move |source| FrontEndError::Protocol { step, source }
}

impl FrontEndError {
    /// The daemon is there, and refused: asking again will not help.
    pub(super) fn is_refusal(&self) -> bool {
        use vhost::vhost_user::Error::BackendInternalError;
        let refused = |source: &vhost::Error| {
            matches!(
                source,
                vhost::Error::VhostUserProtocol(BackendInternalError)
            )
        };
        match self {
            Self::Protocol { source, .. } => refused(source),
            Self::QueueAddress(_) => true,
            _ => false,
        }
    }
}
