//! Names of network interfaces, and the interface behind a tap descriptor.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::sys;

/// A name that the kernel takes for an interface, literally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(String);

/// Text that cannot name an interface.
#[derive(Debug, Error)]
#[error("'{0}' cannot name an interface: 1 to 15 bytes without '/', ':', '%' and blanks")]
pub struct NotAnInterfaceName(String);

impl FromStr for InterfaceName {
    type Err = NotAnInterfaceName;

    /// The kernel's own rules (`dev_valid_name`); `%` besides, which would be a pattern.
    fn from_str(text: &str) -> Result<Self, NotAnInterfaceName> {
        let reserved = |c: char| c == '/' || c == ':' || c == '%' || c == '\0' || c.is_whitespace();
        let fits = !text.is_empty() && text.len() < libc::IFNAMSIZ;
        if fits && text != "." && text != ".." && !text.contains(reserved) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAnInterfaceName(text.to_owned()))
        }
    }
}

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for InterfaceName {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        let text = String::deserialize(text)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A network namespace, by its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkNamespace(PathBuf);

/// Text that cannot name a network namespace.
#[derive(Debug, Error)]
#[error("'{0}' names no network namespace: give a name of 'ip netns' or a path")]
pub struct NotANamespace(String);

impl FromStr for NetworkNamespace {
    type Err = NotANamespace;

    /// A name as ip-netns(8) makes them, or the path of a namespace's file.
    fn from_str(text: &str) -> Result<Self, NotANamespace> {
        match text {
            "" | "." | ".." => Err(NotANamespace(text.to_owned())),
            path if path.contains('/') => Ok(Self(path.into())),
            name => Ok(Self(Path::new("/run/netns").join(name))),
        }
    }
}

impl<'de> Deserialize<'de> for NetworkNamespace {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        let text = String::deserialize(text)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for NetworkNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl NetworkNamespace {
    /// Does `work` on a thread inside.
    ///
    /// # Errors
    /// When there is no such namespace, or this process may not enter it.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let file = File::open(&self.0)?;
        let visit = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        };
        // A thread that changed its namespace must not do anything else afterwards.
        let visited = thread::scope(|scope| scope.spawn(visit).join());
        visited.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    }
}

/// The interface behind a tap descriptor. It may live in another network namespace than ours,
/// where its name means another interface or none.
pub(super) struct Interface {
    name: String,
    socket: OwnedFd,
}

impl Interface {
    /// Finds it.
    pub(super) fn of(tap: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        let name = name.to_owned();
        // Kernels before 5.2 cannot tell the namespace, nor may everybody ask: then it is ours.
        let socket = match sys::netns_of(tap) {
            Ok(netns) if !is_ours(netns.as_fd())? => socket_in(netns)?,
            _ => socket()?,
        };
        Ok(Self { name, socket })
    }

    pub(super) fn mtu(&self) -> io::Result<u16> {
        sys::interface_mtu(&self.socket, &self.name)
    }

    pub(super) fn set_mtu(&self, mtu: u16) -> io::Result<()> {
        sys::set_interface_mtu(&self.socket, &self.name, mtu)
    }
}

fn is_ours(netns: BorrowedFd<'_>) -> io::Result<bool> {
    let theirs = rustix::fs::fstat(netns)?;
    let ours = rustix::fs::stat("/proc/thread-self/ns/net")?;
    Ok((theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino))
}

fn socket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// A socket belongs for ever to the namespace of the thread that made it.
fn socket_in(netns: OwnedFd) -> io::Result<OwnedFd> {
    let visit = thread::Builder::new().spawn(move || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        socket()
    })?;
    visit
        .join()
        .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literal_names_pass() {
        for name in ["tap0", "vm-1.net", "fifteen-bytes-x"] {
            assert_eq!(name.parse::<InterfaceName>().unwrap().as_str(), name);
        }
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "tap%d",
            "sixteen-bytes-xx",
            "a:0",
        ] {
            assert!(name.parse::<InterfaceName>().is_err(), "{name:?}");
        }
    }
}
