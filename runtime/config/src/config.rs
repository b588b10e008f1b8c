//! The configuration in use: what every part of the runtime reads.

use std::path::PathBuf;
use std::time::Duration;

use byte_size::ByteSize;

use crate::{Cache, Count, Hypervisor, RootFs};

/// How pods are run. [`KEYS`](crate::KEYS) tells what each setting means.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What runs the machine.
    pub hypervisor: Hypervisor,
    /// How root file systems reach the guest.
    pub rootfs: RootFs,
    /// Whether the parts are closed in.
    pub sandbox: bool,
    /// Whether the parts serve metrics.
    pub metrics: bool,
    /// Which settings a pod's annotations may change, of those that they can.
    pub pod_overrides: Vec<String>,
    /// The machine.
    pub machine: Machine,
    /// Where programs are.
    pub programs: Programs,
    /// Shared file systems.
    pub virtiofs: VirtioFs,
    /// Disks.
    pub block: Block,
    /// Network interfaces.
    pub network: Network,
    /// Logs.
    pub log: Log,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// A pod's machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Processors.
    pub cpus: Count<64>,
    /// Memory.
    pub memory: ByteSize,
    /// The most memory that any pod may have.
    pub max_memory: Option<ByteSize>,
    /// Whether memory comes from the host's reserved huge pages.
    pub huge_pages: bool,
    /// The guest's kernel.
    pub kernel: Option<PathBuf>,
    /// Its initramfs.
    pub initramfs: Option<PathBuf>,
    /// More words for its command line.
    pub kernel_arguments: Vec<String>,
}

/// Where programs are; `None`: beside the program that looks for them, then in `PATH`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Programs {
    /// `ringside-agent`.
    pub agent: Option<PathBuf>,
    /// `ringside-vmm`.
    pub vmm: Option<PathBuf>,
    /// `qemu-system-x86_64`.
    pub qemu: Option<PathBuf>,
    /// `virtiofsd`.
    pub virtiofsd: Option<PathBuf>,
    /// `vhost-user-blk`.
    pub vhost_user_blk: Option<PathBuf>,
    /// `vhost-user-net`.
    pub vhost_user_net: Option<PathBuf>,
    /// `vhost-user-vsock`.
    pub vhost_user_vsock: Option<PathBuf>,
}

/// Shared file systems (`virtiofsd`).
#[derive(Clone, Debug, PartialEq)]
pub struct VirtioFs {
    /// What guests may keep.
    pub cache: Cache,
    /// Whether guests write back when they like.
    pub writeback: bool,
    /// Request queues.
    pub queues: Count<63>,
    /// More options of the program.
    pub options: Vec<String>,
}

/// Disks (`vhost-user-blk`).
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Whether the host's page cache is gone around.
    pub direct: bool,
    /// Whether guests' discards give space back.
    pub discard: bool,
    /// Queues.
    pub queues: Count<64>,
    /// More options of the program.
    pub options: Vec<String>,
}

/// Network interfaces (`vhost-user-net`).
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Queue pairs of each.
    pub queue_pairs: Count<31>,
}

/// Logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// What is logged.
    pub level: String,
    /// Where each part's log is kept.
    pub directory: Option<PathBuf>,
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    /// From the hypervisor's start to the agent's first answer.
    pub boot: Duration,
    /// From the order to switch off to the machine's end.
    pub stop: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hypervisor: Hypervisor::Auto,
            rootfs: RootFs::VirtioFs,
            sandbox: true,
            metrics: true,
            pod_overrides: crate::keys::overridable(),
            machine: Machine::default(),
            programs: Programs::default(),
            virtiofs: VirtioFs {
                cache: Cache::Auto,
                writeback: false,
                queues: Count::new(1),
                options: Vec::new(),
            },
            block: Block {
                direct: false,
                discard: true,
                queues: Count::new(1),
                options: Vec::new(),
            },
            network: Network {
                queue_pairs: Count::new(1),
            },
            log: Log {
                level: "info".to_owned(),
                directory: None,
            },
            timeouts: Timeouts {
                boot: Duration::from_secs(120),
                stop: Duration::from_secs(10),
            },
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            cpus: Count::new(1),
            memory: ByteSize(512 << 20),
            max_memory: None,
            huge_pages: false,
            kernel: None,
            initramfs: None,
            kernel_arguments: Vec::new(),
        }
    }
}
