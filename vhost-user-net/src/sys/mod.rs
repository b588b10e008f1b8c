//! The room where `unsafe` lives: the tap's ioctls, and system calls on guest memory.
#![allow(
    unsafe_code,
    reason = "ioctls take pointers to C structs, readv and writev take guest memory; every other \
              module is safe"
)]

mod batch;
mod frame;
mod interface;
mod tun;

pub use batch::FrameBatch;
pub use frame::{Scatter, write_prefixed};
pub(crate) use interface::{interface_mtu, set_interface_mtu};
pub(crate) use tun::{
    attach_interface, detach_queue, interface_of, netns_of, reattach_queue, set_header_len,
    set_little_endian, set_offloads,
};

use std::io;
use std::mem::zeroed;

use libc::{c_char, c_int, ifreq};

/// An `ifreq` (netdevice(7)) that names an interface.
fn request_for(name: &str) -> io::Result<ifreq> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut request = empty_request();
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

fn empty_request() -> ifreq {
    // SAFETY: ifreq is a C struct of integers and a union of such; all zero is a valid value.
    unsafe { zeroed() }
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
