//! System calls without a safe wrapper. All of the crate's unsafe code is here and in `kvm`.

#![allow(unsafe_code, reason = "pre_exec hooks and unshare")]

pub(crate) mod namespace;
pub(crate) mod spawn;
