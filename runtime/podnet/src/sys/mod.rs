//! The only room of this crate where `unsafe` lives.
#![allow(unsafe_code, reason = "the tun driver's ioctls have no safe form")]

pub(crate) mod tap;
