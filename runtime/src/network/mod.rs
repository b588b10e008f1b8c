//! One run's network: a namespace with a tap in it, and ports forwarded into it.
//!
//! The namespace has no name and no link to the host's network. It lives as long as a descriptor
//! of it or of its tap is open, so nothing can be left behind.

mod connection;
mod forward;
mod pump;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::thread;

use ringside_netdev::Interface;

use crate::sys::{namespace, tap};

pub use forward::Forwarder;

/// The tap's side of the network, the guest's gateway.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
/// The guest's side.
pub const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Length of the network's prefix.
pub const PREFIX: u8 = 24;
/// The guest's hardware address. Every run has a network of its own, so all can share it; the
/// second bit of the first byte says "locally administered".
pub const GUEST_MAC: &str = "52:54:00:00:02:02";
/// Largest packet.
pub const MTU: u16 = 1500;

const TAP: &str = "tap0";

/// Why a run has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No namespace.
    #[error(
        "cannot make a network namespace, which needs root or CAP_SYS_ADMIN (without --net any user has a guest)"
    )]
    Namespace(#[source] io::Error),
    /// No tap.
    #[error("cannot make a tap device with /dev/net/tun")]
    Tap(#[source] io::Error),
    /// An interface could not be configured.
    #[error(transparent)]
    Interface(#[from] ringside_netdev::Error),
    /// No listener for a published port.
    #[error("cannot listen on 127.0.0.1:{port} to publish it")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread that forwards.
    #[error("cannot start forwarding published ports")]
    Forward(#[source] io::Error),
}

/// A namespace with a tap, configured and up.
#[derive(Debug)]
pub struct RunNetwork {
    /// The namespace.
    pub namespace: OwnedFd,
    /// The tap's queues, one for each pair of the device.
    pub tap_queues: Vec<OwnedFd>,
}

impl RunNetwork {
    /// Makes the namespace and its tap with that many queues.
    ///
    /// # Errors
    /// When the kernel refuses a part of it.
    pub fn create(queue_pairs: u8) -> Result<Self, NetworkError> {
        // A thread of its own: this one must stay in the host's network.
        let made = thread::spawn(move || Self::create_here(queue_pairs));
        made.join()
            .unwrap_or_else(|_| Err(NetworkError::Namespace(io::ErrorKind::Other.into())))
    }

    fn create_here(queue_pairs: u8) -> Result<Self, NetworkError> {
        namespace::enter_new_network().map_err(NetworkError::Namespace)?;
        let namespace = File::open("/proc/thread-self/ns/net").map_err(NetworkError::Namespace)?;
        let multi_queue = queue_pairs > 1;
        let tap_queues = (0..queue_pairs)
            .map(|_| tap::open_queue(TAP, multi_queue))
            .collect::<io::Result<_>>()
            .map_err(NetworkError::Tap)?;
        Interface::new("lo")?.set_up()?;
        let interface = Interface::new(TAP)?;
        interface.set_mtu(MTU)?;
        interface.set_address(HOST_ADDRESS, PREFIX)?;
        interface.set_up()?;
        Ok(Self {
            namespace: namespace.into(),
            tap_queues,
        })
    }
}
