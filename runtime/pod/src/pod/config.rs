//! What a pod shall be.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ringside_config::Config;
use ringside_protocol::agent::Storage;

use crate::disk::PodDisk;
use crate::tap::TapNetwork;

/// Which program runs a pod's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HypervisorChoice {
    /// Our VMM where KVM is native, else QEMU, with KVM or without.
    #[default]
    Auto,
    /// QEMU.
    Qemu,
    /// `ringside-vmm`.
    Ringside,
}

/// What a pod shall be.
#[derive(Debug, Clone)]
pub struct PodConfig {
    /// Its name, unlike any other pod's: a file name.
    pub name: String,
    /// Where pods have their directories.
    pub root: PathBuf,
    /// The guest's host name.
    pub hostname: String,
    /// Processors.
    pub cpus: u8,
    /// Memory in bytes, a multiple of a MiB.
    pub memory: u64,
    /// What runs the machine.
    pub hypervisor: HypervisorChoice,
    /// What of the host's files the guest sees.
    pub files: Files,
    /// The network namespace whose interfaces the guest gets.
    pub network_namespace: Option<PathBuf>,
    /// An interface of the guest on a tap that its owner made, beside those of the namespace.
    pub tap: Option<TapNetwork>,
    /// Disks that the machine starts with, in the guest's order.
    pub disks: Vec<PodDisk>,
    /// Mounted in the guest for the whole pod, in this order, after its shared directories: what is on
    /// the disks, for instance.
    pub storages: Vec<Storage>,
    /// Of the guest as a whole, name and value.
    pub sysctls: BTreeMap<String, String>,
    /// Where logs stay after the pod: a directory that exists. Without one they go with the pod.
    pub logs: Option<PathBuf>,
    /// Where the daemons serve their metrics, an absolute path of a directory that exists: `fs.metrics`,
    /// `SERIAL.metrics` of each disk, `net.metrics` of the tap.
    pub metrics: Option<PathBuf>,
    /// Whether a lost daemon is started again, where the hypervisor can go on with it; else its end is the
    /// pod's.
    pub restart: bool,
    /// How its parts are run. What is said above counts, whatever this says of it.
    pub configuration: Config,
}

/// What of the host's files a guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Files {
    /// A directory of the pod's own, below which [`Pod::share`](crate::Pod::share) binds what containers need. The pod's
    /// owner must be in a mount namespace of its own.
    #[default]
    Bound,
    /// This directory, as a virtio-fs device with the tag [`ROOT_TAG`]; one of `storages` mounts it.
    Directory(PathBuf),
    /// None.
    Nothing,
}

/// Tag of a directory that is shared as it is.
pub const ROOT_TAG: &str = "root";
