//! Devices served by vhost-user daemons.
//!
//! Each device has a thread that speaks with its daemon, so that no processor waits for one. A processor
//! leaves on the [desk](desk) what the driver wants; the thread makes it so, and makes it so again with
//! the next daemon when one is lost. Queues themselves are between guest and daemon.

mod config_space;
mod desk;
mod device;
mod error;
mod session;
mod worker;

pub use config_space::FrontEndConfig;
pub use device::{FrontEnd, Patience};
pub use error::FrontEndError;

#[cfg(test)]
mod tests;
