//! vsock(7): what the kernel's headers say, for the standard library and rustix do not.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Accept connections to any address of this machine.
const ANY: u32 = u32::MAX;

/// Listens on a vsock port. The socket does not block.
pub(crate) fn listen(port: u32, backlog: i32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes integers only.
    let socket = unsafe { libc::socket(libc::AF_VSOCK, kind, 0) };
    super::check(socket)?;
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all bytes zero are a sockaddr_vm.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap_or_default();
    address.svm_cid = ANY;
    address.svm_port = port;
    let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
    let pointer = (&raw const address).cast();
    // SAFETY: `pointer` is to a sockaddr_vm of `length` bytes that lives through the call.
    super::check(unsafe { libc::bind(socket.as_raw_fd(), pointer, length) })?;
    // SAFETY: listen takes integers only.
    super::check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    Ok(socket)
}

/// Takes the next connection; neither it nor the wait for it blocks.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let nowhere = std::ptr::null_mut();
    // SAFETY: accept4 does not write an address where the pointer is null.
    let socket =
        unsafe { libc::accept4(listener.as_raw_fd(), nowhere, std::ptr::null_mut(), flags) };
    super::check(socket)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}
