//! The vhost-user protocol session: one front end after another.

mod backend;
mod front_end;
mod huge_pages;
mod lenient;
mod relay;
mod ring;
mod serve;
mod serving;
mod stop;
mod ways_in;

use std::fs::File;
use std::io;

use vhost::vhost_user::VhostUserProtocolFeatures;

pub use front_end::FrontEnd;
pub use serve::{ServeError, Server, Service, serve};
pub use serving::Serving;
pub(crate) use stop::StopFlag;

use crate::queue::InFlightLog;
use crate::worker::QueueWorker;

/// Which way a device's state goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// From this daemon to where the guest goes on.
    Save,
    /// To this daemon, where the guest goes on.
    Load,
}

/// A virtio device as the session runs it.
///
/// It is shared by all threads of a daemon and outlives connections; what belongs to one queue
/// lives in its [`QueueWorker`].
pub trait Device: Send + Sync + 'static {
    /// The work on one queue.
    type Worker: QueueWorker;

    /// How many queues the device offers, at most 64.
    fn queues(&self) -> usize;

    /// Largest queue size offered; a power of two.
    fn max_queue_size(&self) -> u16 {
        1024
    }

    /// The device's own virtio feature bits. The session adds those of the ring and of vhost-user.
    fn features(&self) -> u64;

    /// vhost-user protocol features beyond those the session offers by itself.
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::empty()
    }

    /// Protocol features that the session offers by itself and that front ends of this kind of
    /// device cannot be trusted with.
    fn unsuitable_protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::empty()
    }

    /// The device's configuration space as it is now.
    fn config(&self) -> Vec<u8>;

    /// The driver writes to the configuration space.
    ///
    /// # Errors
    /// When the field cannot be written.
    fn write_config(&self, offset: usize, data: &[u8]) -> io::Result<()> {
        let _ = (offset, data);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The log of requests in flight of queue `index`, for devices whose requests may be done twice
    /// (crash recovery). Called each time the queue starts.
    fn in_flight_log(&self, index: usize) -> Option<InFlightLog> {
        let _ = index;
        None
    }

    /// Whether the device has a state of its own that moves with its guest (vhost-user,
    /// `VHOST_USER_PROTOCOL_F_DEVICE_STATE`).
    fn has_state(&self) -> bool {
        false
    }

    /// Begins to write the device's state to `file`, or to read it from there up to its end, while no
    /// queue runs. Does not wait: reading and writing are for another thread.
    ///
    /// # Errors
    /// When that cannot be begun.
    fn transfer_state(&self, direction: Transfer, file: File) -> io::Result<()> {
        let _ = (direction, file);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Waits until the state has been transferred.
    ///
    /// # Errors
    /// What went wrong; also, when no transfer was begun.
    fn transferred(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The driver acknowledged `features`.
    fn acknowledged(&self, features: u64) {
        let _ = features;
    }

    /// A front end is about to be served; `front_end` is the way to it until it disconnects.
    fn connected(&self, front_end: &FrontEnd) {
        let _ = front_end;
    }

    /// A front end disconnected; every queue has been drained.
    fn disconnected(&self) {}

    /// Makes the worker of queue `index`, on that queue's thread, each time the queue starts.
    ///
    /// # Errors
    /// The queue then stays stopped; the error is logged.
    fn worker(&self, index: usize, features: u64) -> io::Result<Self::Worker>;
}
