//! The device side of one virtqueue (virtio 1.2, 2.7 split virtqueues).

mod call;
mod chain;
mod dirty;
mod event;
mod fault;
mod in_flight_log;
mod ring_identity;
mod running;
mod token;

pub use crate::sys::{Buffers, OutOfGuestMemory};
pub use call::{Call, Signalling};
pub use chain::{Chain, ChainError};
pub use fault::QueueError;
pub use in_flight_log::{InFlightFile, InFlightLog, LogError};
pub use ring_identity::RingIdentity;
pub use running::{Popped, RunningQueue};
pub use token::Token;
