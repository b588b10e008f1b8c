//! What a turn cost: latency, processor time, context switches, system calls.

mod bystanders;
mod histogram;
mod private_memory;
mod process;
mod syscalls;

pub use bystanders::Bystanders;
pub use histogram::{Histogram, Latency};
pub use private_memory::{Memory, private_kib};
pub use process::{Cost, Processes};
pub use syscalls::{CountError, Counter, Method};
