//! The ioctls of netdevice(7), which no crate of ours wraps.

#![allow(unsafe_code, reason = "ioctl takes pointers to C structs")]

use std::io;
use std::mem::zeroed;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{Ioctl, c_char, c_int, ifreq, rtentry, sockaddr, sockaddr_in};

/// `name` as the kernel's fixed, zero-ended field; `None` when it does not fit.
pub(crate) fn name_field(name: &str) -> Option<[c_char; libc::IFNAMSIZ]> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return None;
    }
    let mut field = [0; libc::IFNAMSIZ];
    for (to, from) in field.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    Some(field)
}

fn request(name: &str) -> io::Result<ifreq> {
    // SAFETY: ifreq is a C struct of integers and a union of such; all zero is a valid value.
    let mut request: ifreq = unsafe { zeroed() };
    request.ifr_name = name_field(name).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(request)
}

fn inet(address: Ipv4Addr) -> sockaddr {
    let inet = sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.octets()),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: both are 16 bytes of plain data; sockaddr is the kernel's generic view of sockaddr_in.
    unsafe { std::mem::transmute::<sockaddr_in, sockaddr>(inet) }
}

fn interface_ioctl(socket: &OwnedFd, code: Ioctl, request: &mut ifreq) -> io::Result<()> {
    // SAFETY: every SIOC[GS]IF* code takes a pointer to one ifreq, which lives across the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), code, request) })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

pub(crate) fn set_ipv4(
    socket: &OwnedFd,
    name: &str,
    code: Ioctl,
    address: Ipv4Addr,
) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_addr = inet(address);
    interface_ioctl(socket, code, &mut request)
}

pub(crate) fn set_mtu(socket: &OwnedFd, name: &str, mtu: u16) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_mtu = mtu.into();
    interface_ioctl(socket, libc::SIOCSIFMTU, &mut request)
}

pub(crate) fn set_up(socket: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = request(name)?;
    interface_ioctl(socket, libc::SIOCGIFFLAGS, &mut request)?;
    let up = i16::try_from(libc::IFF_UP).unwrap_or_default();
    // SAFETY: the kernel just filled the union with the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | up;
    interface_ioctl(socket, libc::SIOCSIFFLAGS, &mut request)
}

pub(crate) fn add_default_route(socket: &OwnedFd, gateway: Ipv4Addr) -> io::Result<()> {
    // SAFETY: rtentry is a C struct of integers and pointers; all zero is a valid value.
    let mut route: rtentry = unsafe { zeroed() };
    route.rt_dst = inet(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = inet(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = inet(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: SIOCADDRT takes a pointer to one rtentry, which lives across the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &route) })
}
