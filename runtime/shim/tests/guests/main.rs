//! containerd runs containers in guests under QEMU, through the shim.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod containerd;
mod endings;
mod image;
mod in_the_lab;
mod life;
mod programs;
mod single;
mod together;
mod volumes;
