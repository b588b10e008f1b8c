//! System calls without a safe wrapper. All of the crate's unsafe code is here.

#![allow(
    unsafe_code,
    reason = "pre_exec hooks, unshare, io_uring_setup, close_range, and the ioctls of tun and terminals"
)]

pub(crate) mod descriptor;
pub(crate) mod namespace;
pub(crate) mod ring;
pub(crate) mod spawn;
pub(crate) mod tap;
