//! containerd runs containers in guests under QEMU, through the shim.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod containerd;
mod endings;
mod events;
mod image;
mod in_the_lab;
mod life;
mod limits;
mod net;
mod programs;
mod single;
mod streams;
mod together;
mod volumes;
