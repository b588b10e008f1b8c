//! Virtio over PCI, modern only (virtio 1.2, 4.1): what the guest's driver sees. Who serves the queues is
//! behind [`Device`].

mod balloon;
mod common;
mod device;
mod in_process;
mod layout;
mod queue;
mod rng;
mod signals;
mod transport;

pub use balloon::Balloon;
pub use device::{Condition, Device, Kind, QueueSetup, SaveError, Saved, Setup, SharedDevice};
pub use in_process::{InProcess, Request, ServeError, Server};
pub use rng::Rng;
pub use signals::Signals;
pub use transport::{Accesses, Positions, Transport, TransportError, TransportState};

#[cfg(test)]
mod tests;
