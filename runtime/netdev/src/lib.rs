//! Addresses, MTU and state of a network interface.
//!
//! Uses the classic `SIOC*` ioctls (netdevice(7)): the host sets up a run's tap with it, the guest
//! its own interface, and neither needs more. Everything acts on the network namespace of the
//! calling thread.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

pub mod rtnetlink;
mod sys;

/// What could not be set on which interface.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket to send ioctls through.
    #[error("cannot open a socket to configure network interfaces")]
    Socket(#[source] io::Error),
    /// An interface's name that the kernel cannot take.
    #[error("interface name {0:?} is empty, longer than 15 bytes or holds a zero byte")]
    Name(String),
    /// The kernel refused.
    #[error("cannot set the {what} of network interface {name}")]
    Refused {
        /// The property.
        what: &'static str,
        /// The interface.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A network interface in this thread's network namespace, by name.
#[derive(Debug)]
pub struct Interface {
    name: String,
    socket: OwnedFd,
}

impl Interface {
    /// Names an interface. It need not exist yet.
    ///
    /// # Errors
    /// When the name is impossible or no socket can be had.
    pub fn new(name: &str) -> Result<Self, Error> {
        sys::name_field(name).ok_or_else(|| Error::Name(name.to_owned()))?;
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| Error::Socket(errno.into()))?;
        Ok(Self {
            name: name.to_owned(),
            socket,
        })
    }

    /// Gives the interface one IPv4 address and its network.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_address(&self, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
        let mask = u32::MAX
            .checked_shl(32_u32.saturating_sub(prefix.into()))
            .unwrap_or(0);
        sys::set_ipv4(&self.socket, &self.name, libc::SIOCSIFADDR, address)
            .map_err(|source| self.refused("address", source))?;
        sys::set_ipv4(
            &self.socket,
            &self.name,
            libc::SIOCSIFNETMASK,
            Ipv4Addr::from_bits(mask),
        )
        .map_err(|source| self.refused("netmask", source))
    }

    /// Sets the largest packet's size.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_mtu(&self, mtu: u16) -> Result<(), Error> {
        sys::set_mtu(&self.socket, &self.name, mtu).map_err(|source| self.refused("MTU", source))
    }

    /// Switches the interface on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_up(&self) -> Result<(), Error> {
        sys::set_up(&self.socket, &self.name).map_err(|source| self.refused("up state", source))
    }

    /// Sends everything without a closer route to `gateway`.
    ///
    /// # Errors
    /// When the kernel refuses, as for a gateway outside the interface's network.
    pub fn add_default_route(&self, gateway: Ipv4Addr) -> Result<(), Error> {
        sys::add_default_route(&self.socket, gateway)
            .map_err(|source| self.refused("default route", source))
    }

    fn refused(&self, what: &'static str, source: io::Error) -> Error {
        Error::Refused {
            what,
            name: self.name.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_names_are_refused() {
        for name in ["", "sixteen-bytes-xx", "nul\0"] {
            assert!(
                matches!(Interface::new(name), Err(Error::Name(_))),
                "{name:?}"
            );
        }
        assert!(Interface::new("fifteen-bytes-x").is_ok());
    }

    #[test]
    fn a_missing_interface_is_named() {
        let error = Interface::new("no-such-if").unwrap().set_up().unwrap_err();
        assert!(error.to_string().contains("no-such-if"));
    }
}
