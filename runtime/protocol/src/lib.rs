//! What `ringside` and the agent in its guest say to each other.
//!
//! The host hands the guest one [`GuestConfig`] in a file of the initramfs (a kernel command line
//! is too short for an argument vector). From then on both talk over virtio-serial ports: three
//! carry the command's raw bytes, [`port::CONTROL`] carries one JSON object per line, [`Order`]s
//! towards the guest and [`Notice`]s towards the host.
//!
//! A stream's end is said as a byte count on the control port, never by closing a port: a
//! hypervisor may drop what it still holds when a character device closes.
//!
//! A pod's guest has no such file. Its agent serves ttrpc over vsock: `agent` (features `agent` and
//! `host`, generated from `proto/agent.proto`), and takes its processes' standard streams as [`stream`]
//! says.

#[cfg(any(feature = "agent", feature = "host"))]
pub mod agent;
mod config;
mod control;
pub mod stream;
mod text;

pub use config::{Block, Directory, GuestConfig, Network, Process, Root, WindowSize};
pub use control::{Notice, Order, read_line, write_line};
pub use text::RawText;

/// Where the guest finds its [`GuestConfig`], in the initramfs.
pub const CONFIG_PATH: &str = "/ringside.json";

/// Folder of the initramfs that holds the kernel modules.
pub const MODULES_DIR: &str = "/modules";

/// The list of module files in [`MODULES_DIR`], one name a line, in load order.
pub const MODULES_LIST: &str = "/modules/load-order";

/// Names of the virtio-serial ports of a `ringside run`, numbers of the vsock ports of a pod.
pub mod port {
    /// vsock port of the pod agent's service.
    pub const AGENT: u32 = 1024;
    /// vsock port of the pod's standard streams, see [`stream`](super::stream).
    pub const STREAM: u32 = 1025;
    /// Bytes for the command's standard input.
    pub const STDIN: &str = "ringside.stdin";
    /// Bytes of the command's standard output, or of its terminal.
    pub const STDOUT: &str = "ringside.stdout";
    /// Bytes of the command's standard error.
    pub const STDERR: &str = "ringside.stderr";
    /// [`Order`](super::Order)s and [`Notice`](super::Notice)s, one JSON object a line.
    pub const CONTROL: &str = "ringside.control";
}
