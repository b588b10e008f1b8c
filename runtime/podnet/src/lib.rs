#![doc = include_str!("../README.md")]

mod error;
mod namespace;
mod netlink;
mod network;
mod read;
mod sys;
mod traffic;
mod wiring;

pub use error::Error;
pub use namespace::PodNamespace;
pub use network::{Interface, Mac, Neighbour, Network, Prefix, Route};
pub use wiring::{Wired, Wiring};
