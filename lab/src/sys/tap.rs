//! Opening a tap: TUNSETIFF has no wrapper in the crates we use.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// `_IOW('T', 202, int)` (linux/if_tun.h).
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// Opens a queue of the tap `name` of the calling thread's network namespace, making the tap
/// when it is not there. Frames carry a `virtio_net_hdr`.
pub(crate) fn open(name: &str, multi_queue: bool) -> io::Result<OwnedFd> {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let multi = if multi_queue {
        libc::IFF_MULTI_QUEUE
    } else {
        0
    };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | multi;
    // struct ifreq: the name in 16 bytes, the flags as a short, the rest of the union.
    let mut request = [0_u8; 40];
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a tap's name has 1 to 15 bytes",
        ));
    }
    request[..bytes.len()].copy_from_slice(bytes);
    request[16..20].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one struct ifreq, which has 40 bytes on every 64-bit
    // Linux; `request` is that large and outlives the call.
    if unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tun.into())
}
