//! `ringside run` with real guests: QEMU and our daemons, nothing simulated.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows these in test functions, not in the helpers of a test crate"
)]

mod bundle;
mod command;
mod devices;
mod ending;
mod engine;
mod in_the_lab;
mod oci;
mod ordinary_user;
mod support;
