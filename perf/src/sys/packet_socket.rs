//! A packet socket that sends one frame again and again, many at a time; and how a tap is prepared.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Most frames of one system call.
const BATCH: usize = 64;
/// Bytes of one: whoever receives in the same thread must not find its buffers full for a whole batch.
const ROOM: usize = 512 << 10;
const LEAST: usize = 8;
/// `PACKET_VNET_HDR_SZ` (linux/if_packet.h).
const PACKET_VNET_HDR_SZ: libc::c_int = 24;
/// `TUNSETVNETHDRSZ`: `_IOW('T', 216, int)` (linux/if_tun.h).
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;

/// Sends frames to a network interface, past its queueing discipline.
#[derive(Debug)]
pub(crate) struct Generator {
    socket: OwnedFd,
    frame: Box<[u8]>,
}

impl Generator {
    /// A sender of `frame`, which begins with a virtio header of 12 bytes, to the interface `name` of
    /// the calling thread's network namespace.
    pub(crate) fn open(name: &str, frame: &[u8]) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointer is passed.
        let fd = checked(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the kernel just made this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        for (option, value) in [
            (libc::PACKET_VNET_HDR, 1),
            (PACKET_VNET_HDR_SZ, 12),
            (libc::PACKET_QDISC_BYPASS, 1),
        ] {
            // Kernels before 6.4 have no PACKET_VNET_HDR_SZ.
            set_option(&socket, option, value)?;
        }
        bind(&socket, name)?;
        let frame = frame.into();
        Ok(Self { socket, frame })
    }

    /// Sends up to 64 frames, of long ones fewer; returns how many the interface took.
    pub(crate) fn send(&self) -> usize {
        let mut range = libc::iovec {
            iov_base: self.frame.as_ptr().cast_mut().cast(),
            iov_len: self.frame.len(),
        };
        // SAFETY: all zero is a valid message header.
        let mut message: libc::mmsghdr = unsafe { zeroed() };
        message.msg_hdr.msg_iov = &raw mut range;
        message.msg_hdr.msg_iovlen = 1;
        let mut messages = [message; BATCH];
        let frames = (ROOM / self.frame.len().max(1)).clamp(LEAST, BATCH);
        let count = u32::try_from(frames).unwrap_or(1);
        // SAFETY: the messages and the range and frame that they name live across the call; the
        // kernel reads the frame only.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).unwrap_or(0)
    }
}

/// Gives a tap headers of 12 bytes, and lets it hand out frames that are to be cut by TSO.
pub(crate) fn prepare_tap(tap: &OwnedFd) -> io::Result<()> {
    let len: libc::c_int = 12;
    // SAFETY: the request takes a pointer to one int, which lives across the call.
    checked(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETVNETHDRSZ, &raw const len) })?;
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let offloads = libc::c_ulong::from(offloads);
    // SAFETY: the request takes its argument by value.
    checked(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) }).map(drop)
}

fn set_option(socket: &OwnedFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(4);
    // SAFETY: the option takes one int of that length, which lives across the call.
    checked(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const value).cast(),
            len,
        )
    })
    .map(drop)
}

fn bind(socket: &OwnedFd, name: &str) -> io::Result<()> {
    let index = rustix::net::netdevice::name_to_index(socket, name)?;
    // SAFETY: all zero is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    let len = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
    // SAFETY: the pointer names an address of that length, which lives across the call.
    checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}
