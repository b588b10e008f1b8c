//! Containers in pods, next to runc's: how soon they start, what they hold, and how that grows.

mod agent;
mod containerd;
mod contestant;
mod error;
pub mod growth;
mod image;
mod options;
mod parts;
mod queues;
pub mod start;

pub use error::Error;
pub use options::{PodsConfig, PodsOptions};
