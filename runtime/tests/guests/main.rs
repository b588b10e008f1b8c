//! `ringside run` with real guests: QEMU and our daemons, nothing simulated.

mod command;
mod devices;
mod ending;
mod support;
