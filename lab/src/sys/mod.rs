//! The only rooms of this crate where `unsafe` lives.
#![allow(
    unsafe_code,
    reason = "thin wrappers over system calls that have no safe form"
)]

pub(crate) mod event;
pub(crate) mod fuse;
pub(crate) mod namespace;
pub(crate) mod ptrace;
pub(crate) mod spawn;
pub(crate) mod tap;
pub(crate) mod tsc;
