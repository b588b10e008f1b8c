//! The crate's unsafe code: a block device's queues, and a process's clock.
#![allow(
    unsafe_code,
    reason = "libblkio names memory by raw pointers; a process's clock has no safe binding"
)]

pub(crate) mod block_queue;
pub(crate) mod cpu_clock;
