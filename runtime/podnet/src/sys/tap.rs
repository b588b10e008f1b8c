//! Making a tap (Linux Documentation/networking/tuntap.rst): rtnetlink makes none.

use std::fs::File;
use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd;

use libc::{c_char, c_int, c_short, ifreq};

const CLONE_DEVICE: &str = "/dev/net/tun";

/// Makes the tap `name` in the calling thread's network namespace; it stays until it is deleted. Every
/// frame starts with a virtio-net header (`IFF_VNET_HDR`), as vhost-user-net wants. `multi_queue` lets it
/// be opened more than once.
///
/// # Errors
/// When the name is taken (`EBUSY`), or the kernel refuses.
pub(crate) fn make(name: &str, multi_queue: bool) -> io::Result<()> {
    let tun = File::options().read(true).write(true).open(CLONE_DEVICE)?;
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    if multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    // SAFETY: ifreq is a C struct of integers and a union of such; all zero is a valid value.
    let mut request: ifreq = unsafe { zeroed() };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = short(flags);
    // SAFETY: TUNSETIFF takes a pointer to one ifreq, which lives across the call.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let persistent: c_int = 1;
    // SAFETY: TUNSETPERSIST takes its argument by value, no pointer.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, persistent) })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// All 16 bits are flags; the highest, `IFF_TUN_EXCL`, makes the field look negative.
fn short(flags: c_int) -> c_short {
    let [a, b, ..] = flags.to_le_bytes();
    c_short::from_le_bytes([a, b])
}
