//! What the lab and the first process of its machine (`lab/init`) say to each other.
//!
//! The host hands the machine one [`MachineConfig`] in a file of the initramfs (a kernel command line
//! is too short for an argument vector). From then on both talk over virtio-serial ports: three
//! carry the command's raw bytes, [`port::CONTROL`] carries one JSON object per line, [`Order`]s
//! towards the machine and [`Notice`]s towards the host.
//!
//! A stream's end is said as a byte count on the control port, never by closing a port: a
//! hypervisor may drop what it still holds when a character device closes.

mod config;
mod control;
mod text;

pub use config::{Directory, MachineConfig, Process};
pub use control::{Notice, Order, read_line, write_line};
pub use text::RawText;

/// Where the machine finds its [`MachineConfig`], in the initramfs.
pub const CONFIG_PATH: &str = "/lab.json";

/// Names of the virtio-serial ports.
pub mod port {
    /// Bytes for the command's standard input.
    pub const STDIN: &str = "lab.stdin";
    /// Bytes of the command's standard output.
    pub const STDOUT: &str = "lab.stdout";
    /// Bytes of the command's standard error.
    pub const STDERR: &str = "lab.stderr";
    /// [`Order`](super::Order)s and [`Notice`](super::Notice)s, one JSON object a line.
    pub const CONTROL: &str = "lab.control";
}
