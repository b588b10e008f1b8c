//! One PCI bus without bridges: configuration space, base addresses, messages (PCI local bus
//! specification 3.0; ECAM as in the PCI Express base specification).
//!
//! The guest writes all of it as it likes. Addresses are compared, never dereferenced; two devices may
//! claim the same addresses, then the first answers.

mod bus;
mod config_space;
mod host_bridge;
mod msix;
mod wiring;

pub use bus::{Function, PciBus, SharedFunction};
pub use config_space::{Bar, ConfigSpace, Identity};
pub use host_bridge::HostBridge;
pub use msix::{Msix, MsixState, Vector};
pub use wiring::Wiring;

#[cfg(test)]
pub(crate) use wiring::testing;
