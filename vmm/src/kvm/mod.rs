//! The kernel's side of the machine: memory slots, processors, interrupts. The only module besides
//! `sys` that may use `unsafe`.

mod cpuid;
mod error;
mod lapic;
mod memory;
mod probe;
mod registers;
mod routes;
mod signal;
mod state;
mod vcpu;
mod vm;

pub use error::KvmError;
pub use probe::Speed;
pub use state::{ChipState, ProcessorState};
pub use vcpu::{Beginning, Exits, Guest, Probe, Report, Reporter, Stopped, VcpuThread};
pub use vm::{HostKvm, Message, Vm};
