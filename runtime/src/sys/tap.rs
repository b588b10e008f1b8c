//! Tap devices (Linux Documentation/networking/tuntap.rst).

use std::fs::File;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{c_char, c_short, ifreq};

const TUN: &str = "/dev/net/tun";

/// Opens one queue of the tap `name` in this thread's network namespace, making it when it is new.
///
/// Every packet starts with a virtio-net header (`IFF_VNET_HDR`).
pub(crate) fn open_queue(name: &str, multi_queue: bool) -> io::Result<OwnedFd> {
    let tun = File::options().read(true).write(true).open(TUN)?;
    let multi = if multi_queue {
        libc::IFF_MULTI_QUEUE
    } else {
        0
    };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | multi;
    // SAFETY: ifreq is a C struct of integers and a union of such; all zero is a valid value.
    let mut request: ifreq = unsafe { zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .zip(name.bytes())
        .take(libc::IFNAMSIZ - 1)
    {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = c_short::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: TUNSETIFF takes a pointer to one ifreq, which lives across the call.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(tun.into())
    }
}
