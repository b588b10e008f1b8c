//! System calls without a safe wrapper. All of the crate's unsafe code is here.

#![allow(
    unsafe_code,
    reason = "pre_exec hooks, unshare, io_uring_setup and the tun ioctl"
)]

pub(crate) mod namespace;
pub(crate) mod ring;
pub(crate) mod spawn;
pub(crate) mod tap;
