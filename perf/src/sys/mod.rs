//! The crate's unsafe code: a block device's queues, a process's clock, and priorities.
#![allow(
    unsafe_code,
    reason = "libblkio names memory by raw pointers; clocks of processes and priorities of threads have no safe binding"
)]

pub(crate) mod block_queue;
pub(crate) mod cpu_clock;
pub(crate) mod keep_awake;
pub(crate) mod packet_socket;
