//! containerd runs containers in guests under QEMU, through the shim.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod containerd;
mod endings;
mod image;
mod life;
mod programs;
mod single;
mod together;
mod volumes;
