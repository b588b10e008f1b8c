//! What `ringside` and the agent in its guest say to each other.
//!
//! The agent serves ttrpc over vsock: `agent` (features `agent` and `host`, generated from
//! `proto/agent.proto`), and takes its processes' standard streams as [`stream`] says.

#[cfg(any(feature = "agent", feature = "host"))]
pub mod agent;
pub mod stream;

/// Folder of the initramfs that holds the kernel modules.
pub const MODULES_DIR: &str = "/modules";

/// The list of module files in [`MODULES_DIR`], one name a line, in load order.
pub const MODULES_LIST: &str = "/modules/load-order";

/// Numbers of the guest's vsock ports.
pub mod port {
    /// The agent's service.
    pub const AGENT: u32 = 1024;
    /// Standard streams of processes, see [`stream`](super::stream).
    pub const STREAM: u32 = 1025;
}
