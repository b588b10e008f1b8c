//! A vhost-user front end with a split-virtqueue driver: the test is the guest.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use lab::frontend::{FrontEnd, GuestMemory, ProtocolFeatures, blk::Blk, features};
//!
//! let memory = GuestMemory::with_size(16 << 20)?;
//! let mut front_end = FrontEnd::connect("/tmp/blk.sock".as_ref(), Duration::from_secs(5))?;
//! front_end.handshake(features::VERSION_1 | features::EVENT_IDX, ProtocolFeatures::CONFIG)?;
//! front_end.set_mem_table(&memory)?;
//! let mut disk = Blk::new(front_end.set_up_queue(0, 128)?);
//! let (status, data) = disk.read(0, 4096)?;
//! assert_eq!((status, data.len()), (0, 4096));
//! # Ok(())
//! # }
//! ```

pub mod blk;
pub mod burst;
mod channel;
mod connect;
mod error;
mod exchange;
pub mod fs;
pub mod garbage;
mod hostile;
mod memory;
pub mod net;
mod queue;
mod ring;
mod session;
mod slots;
#[cfg(test)]
mod tests;
mod used;
pub mod vsock;
mod watchdog;

pub use channel::BackendChannel;
pub use error::{Error, Result};
pub use exchange::{Exchange, Reply, Ticket};
pub use memory::{GuestAddress, GuestMemory};
pub use queue::{DriverQueue, Segment};
pub use ring::{Descriptor, RingAddresses, descriptor_flags};
pub use session::{FrontEnd, Negotiated};
pub(crate) use slots::SlotQueue;
pub use used::Used;
/// The vhost-user protocol features, as a bit set.
pub use vhost::vhost_user::message::VhostUserProtocolFeatures as ProtocolFeatures;

/// Feature bits that concern every virtio device.
pub mod features {
    use virtio_bindings::{virtio_config, virtio_ring};

    /// Indirect descriptor tables (virtio 1.2, 6).
    pub const INDIRECT_DESC: u64 = 1 << virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
    /// `used_event` and `avail_event` (virtio 1.2, 6).
    pub const EVENT_IDX: u64 = 1 << virtio_ring::VIRTIO_RING_F_EVENT_IDX;
    /// The device follows virtio 1.0 or later (virtio 1.2, 6).
    pub const VERSION_1: u64 = 1 << virtio_config::VIRTIO_F_VERSION_1;
    /// The back end speaks protocol features (vhost-user, `VHOST_USER_F_PROTOCOL_FEATURES`).
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
}
