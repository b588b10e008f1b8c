//! The ioctls of linux/if_tun.h (Documentation/networking/tuntap.rst in the kernel).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{Ioctl, c_int, c_short, c_uint, c_ulong, ifreq};

use super::{check, empty_request, request_for};

/// `TUNSETIFF`: binds a descriptor of /dev/net/tun to interface `name`, made if there is none.
pub(crate) fn attach_interface(fd: BorrowedFd<'_>, name: &str, flags: c_int) -> io::Result<()> {
    let mut request = request_for(name)?;
    request.ifr_ifru.ifru_flags = short(flags);
    request_ioctl(fd, libc::TUNSETIFF, &mut request)
}

/// `TUNGETIFF`: the name and the `IFF_*` flags of the interface behind a descriptor.
pub(crate) fn interface_of(fd: BorrowedFd<'_>) -> io::Result<(String, c_int)> {
    let mut request = empty_request();
    request_ioctl(fd, libc::TUNGETIFF, &mut request)?;
    // SAFETY: the kernel just filled the union with the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let name: Vec<u8> = request
        .ifr_name
        .iter()
        .flat_map(|c| c.to_ne_bytes())
        .collect();
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| io::ErrorKind::InvalidData)?;
    let flags = c_int::from(u16::from_ne_bytes(flags.to_ne_bytes()));
    Ok((name.to_string_lossy().into_owned(), flags))
}

/// `TUNSETQUEUE` with `IFF_ATTACH_QUEUE`: frames go to this queue again.
pub(crate) fn reattach_queue(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_queue(fd, libc::IFF_ATTACH_QUEUE)
}

/// `TUNSETQUEUE` with `IFF_DETACH_QUEUE`: no frame goes to this queue; those that wait are lost.
pub(crate) fn detach_queue(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_queue(fd, libc::IFF_DETACH_QUEUE)
}

fn set_queue(fd: BorrowedFd<'_>, flag: c_int) -> io::Result<()> {
    let mut request = empty_request();
    request.ifr_ifru.ifru_flags = short(flag);
    request_ioctl(fd, libc::TUNSETQUEUE, &mut request)
}

/// `TUNSETVNETHDRSZ`: length of the header before each frame.
pub(crate) fn set_header_len(fd: BorrowedFd<'_>, len: c_int) -> io::Result<()> {
    int_ioctl(fd, libc::TUNSETVNETHDRSZ, len)
}

/// `TUNSETVNETLE`: the header's fields are little-endian, as virtio 1 has them.
pub(crate) fn set_little_endian(fd: BorrowedFd<'_>) -> io::Result<()> {
    int_ioctl(fd, libc::TUNSETVNETLE, 1)
}

/// `TUNSETOFFLOAD`: what frames read from the tap may leave to be done (`TUN_F_*`).
pub(crate) fn set_offloads(fd: BorrowedFd<'_>, offloads: c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value, no pointer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(offloads)) })
}

/// `TUNGETDEVNETNS`: the network namespace that the interface lives in.
pub(crate) fn netns_of(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: TUNGETDEVNETNS takes no argument.
    let netns = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETDEVNETNS) };
    check(netns)?;
    // SAFETY: the kernel just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(netns) })
}

fn request_ioctl(fd: BorrowedFd<'_>, code: Ioctl, request: &mut ifreq) -> io::Result<()> {
    // SAFETY: TUNSETIFF, TUNGETIFF and TUNSETQUEUE take a pointer to one ifreq, which lives
    // across the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), code, request) })
}

fn int_ioctl(fd: BorrowedFd<'_>, code: Ioctl, value: c_int) -> io::Result<()> {
    // SAFETY: both codes used here take a pointer to one int, which lives across the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), code, &raw const value) })
}

/// The flags fit: the highest is `IFF_VNET_HDR`, 0x4000.
fn short(flags: c_int) -> c_short {
    c_short::try_from(flags).unwrap_or_default()
}
