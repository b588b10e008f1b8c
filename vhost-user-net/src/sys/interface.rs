//! The ioctls of netdevice(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{Ioctl, ifreq};

use super::{check, request_for};

/// The interface's MTU. `socket` is any socket of the interface's network namespace.
pub(crate) fn interface_mtu(socket: &impl AsFd, name: &str) -> io::Result<u16> {
    let mut request = request_for(name)?;
    interface_ioctl(socket, libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: SIOCGIFMTU filled the union with an int.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    // An MTU above 65535 (no tap has one) is as good as that.
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Sets the interface's MTU.
pub(crate) fn set_interface_mtu(socket: &impl AsFd, name: &str, mtu: u16) -> io::Result<()> {
    let mut request = request_for(name)?;
    request.ifr_ifru.ifru_mtu = mtu.into();
    interface_ioctl(socket, libc::SIOCSIFMTU, &mut request)
}

fn interface_ioctl(socket: &impl AsFd, code: Ioctl, request: &mut ifreq) -> io::Result<()> {
    // SAFETY: both codes used here take a pointer to one ifreq, which lives across the call.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), code, request) })
}
