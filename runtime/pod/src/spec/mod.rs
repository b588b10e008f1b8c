//! From the OCI specification that an engine wrote for this host to one for the guest.
//!
//! | of the host's specification | in the guest's |
//! | --- | --- |
//! | `root.path` | the same directory, by way of the [shared one](crate::share) |
//! | bind mounts | of sources by way of the shared directory; what is read-only is so on the host already |
//! | bind mounts of `/proc`, `/sys`, `/dev` or below, but for `/dev/shm` | of the guest's own |
//! | a bind mount on `/dev/shm` | of the pod's own shared memory |
//! | `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`, `cgroup` | the same |
//! | any other mount | refused |
//! | a network name space | the guest's own, which is the pod's; none at all (the host's) is refused |
//! | a name space with a path: `pid` | the pod's; `ipc`, `uts`, `cgroup`: the guest's own |
//! | `user` or `mnt` with a path | refused |
//! | a bind mount of an `emptyDir` in memory (a tmpfs that is empty) | of a tmpfs of that size in the guest, the pod's |
//! | `linux.devices` | the same; block devices of the host that a rule names are [disks](BlockVolume), others are left out |
//! | `linux.sysctl` of the network | the guest's, by the pod's first container |
//! | `linux.sysctl` of IPC | the same in its own name space; by the pod's first container the guest's, too |
//! | `cgroupsPath` | `/CONTAINER` |
//! | hooks `prestart`, `createRuntime`, `poststart`, `poststop` | run on the host |
//! | hooks `createContainer`, `startContainer` | the same, run in the guest |

mod devices;
mod mounts;
mod namespaces;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hook, Hooks, Linux, Spec};
use ringside_protocol::agent::{Storage, storage};

pub use devices::BlockVolume;

use crate::share::{self, Bind};

/// Where the guest has what its containers share as /dev/shm.
pub const GUEST_SHM: &str = "/run/ringside/shm";

/// Where the guest mounts disks that are roots.
const GUEST_DISKS: &str = "/run/ringside/disks";

/// Where the guest has volumes that are in its memory.
const GUEST_MEMORY: &str = "/run/ringside/memory";

/// Why a specification cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// No file, or no specification.
    #[error("cannot read {path} as an OCI specification")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// No `root`.
    #[error("the specification has no root.path")]
    NoRoot,
    /// No `process`.
    #[error("the specification has no process")]
    NoProcess,
    /// No `linux`.
    #[error("the specification has no linux section")]
    NoLinux,
    /// The host's network.
    #[error(
        "the container asks for the host's network, which a virtual machine cannot have: give it a network namespace"
    )]
    HostNetwork,
    /// A name space that cannot be joined.
    #[error(
        "the container asks for the {kind} namespace {path} of the host, which a guest cannot join"
    )]
    Namespace {
        /// Which.
        kind: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// A mount that is neither a bind mount nor the guest's business.
    #[error(
        "the mount on {destination} has type {kind:?}: only bind mounts, proc, sysfs, tmpfs, devpts, mqueue and cgroup can be had"
    )]
    MountType {
        /// Where.
        destination: PathBuf,
        /// What.
        kind: String,
    },
    /// A bind mount of nothing.
    #[error("the bind mount on {0} has no source")]
    NoSource(PathBuf),
    /// A disk that the host does not have.
    #[error("{0} is to be the host's block device {1}:{2}, which has no node in /dev")]
    BlockDevice(PathBuf, i64, i64),
}

/// What is done on the host for a container, and what the guest is told.
#[derive(Debug)]
pub struct Plan {
    /// The specification with all paths as the guest sees them.
    pub spec: Spec,
    /// The root file system, for [`Share::add`](crate::share::Share::add).
    pub root: Bind,
    /// The bind mounts.
    pub binds: Vec<Bind>,
    /// What is mounted in the guest before the container is made.
    pub storages: Vec<Storage>,
    /// Disks that become devices.
    pub volumes: Vec<BlockVolume>,
    /// What runs on the host.
    pub hooks: HostHooks,
}

/// Hooks that run on the host.
#[derive(Debug, Clone, Default)]
pub struct HostHooks {
    /// Before the container is created. Deprecated, and still used.
    pub prestart: Vec<Hook>,
    /// After those.
    pub create_runtime: Vec<Hook>,
    /// After the program was started.
    pub poststart: Vec<Hook>,
    /// After the container was deleted.
    pub poststop: Vec<Hook>,
}

/// Reads `config.json` of a bundle.
///
/// # Errors
/// When it cannot be read or is no specification.
pub fn read(bundle: &Path) -> Result<Spec, crate::PodError> {
    let path = bundle.join("config.json");
    let text = std::fs::read(&path).map_err(crate::PodError::file("read", &path))?;
    let spec = serde_json::from_slice(&text);
    Ok(spec.map_err(|source| SpecError::Read { path, source })?)
}

/// The network name space that a specification names, if it names one.
#[must_use]
pub fn network_namespace(spec: &Spec) -> Option<PathBuf> {
    namespaces::network_path(spec)
}

/// Plans a container of a bundle. Nothing is touched yet.
///
/// # Errors
/// What cannot be carried out, by the specification's words.
pub fn plan(mut spec: Spec, container: &str, bundle: &Path) -> Result<Plan, SpecError> {
    if spec.process().is_none() {
        return Err(SpecError::NoProcess);
    }
    let root = root(&mut spec, container, bundle)?;
    let (binds, storages) = mounts::translate(&mut spec, container, bundle)?;
    let volumes = devices::volumes(&mut spec)?;
    namespaces::translate(&mut spec)?;
    let linux = spec.linux_mut().as_mut().ok_or(SpecError::NoLinux)?;
    linux.set_cgroups_path(Some(Path::new("/").join(container)));
    let of_pod = network_sysctls(linux);
    if let Some(sysctls) = linux.sysctl_mut() {
        sysctls.retain(|name, _| !of_pod.contains_key(name));
    }
    let hooks = take_host_hooks(&mut spec);
    Ok(Plan {
        spec,
        root,
        binds,
        storages,
        volumes,
        hooks,
    })
}

impl Plan {
    /// The root is on a disk with this serial: it is mounted in the guest, from where the container has it.
    pub fn root_on_disk(&mut self, serial: &str, filesystem: &str, options: Vec<String>) {
        let point = format!("{GUEST_DISKS}/{serial}");
        if let Some(root) = self.spec.root_mut() {
            root.set_path(PathBuf::from(&point));
        }
        self.storages.push(Storage {
            source: Some(storage::Source::BlockSerial(serial.to_owned())),
            filesystem: filesystem.to_owned(),
            options,
            mount_point: point,
            ..Storage::default()
        });
    }
}

/// The settings that a pod's first container makes for all: those of the network namespace, and of the IPC namespace that
/// the others join, for both are the guest's own.
#[must_use]
pub fn pod_sysctls(spec: &Spec) -> BTreeMap<String, String> {
    let Some(linux) = spec.linux() else {
        return BTreeMap::new();
    };
    let mut all = network_sysctls(linux);
    all.extend(sysctls(linux, is_of_ipc));
    all
}

fn network_sysctls(linux: &Linux) -> BTreeMap<String, String> {
    sysctls(linux, |name| {
        name.starts_with("net.") || name.starts_with("net/")
    })
}

/// Those of ipc_namespaces(7).
fn is_of_ipc(name: &str) -> bool {
    let name = name.replace('/', ".");
    let all = ["kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue."];
    all.iter().any(|it| name.starts_with(it))
}

fn sysctls(linux: &Linux, is_meant: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let all = linux.sysctl().iter().flatten();
    let meant = all.filter(|(name, _)| is_meant(name));
    meant
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn root(spec: &mut Spec, container: &str, bundle: &Path) -> Result<Bind, SpecError> {
    let root = spec.root_mut().as_mut().ok_or(SpecError::NoRoot)?;
    let bind = Bind {
        source: bundle.join(root.path()),
        recursive: true,
        read_only: root.readonly().unwrap_or(false),
    };
    root.set_path(share::rootfs(container));
    Ok(bind)
}

fn take_host_hooks(spec: &mut Spec) -> HostHooks {
    let Some(hooks) = spec.hooks_mut().take() else {
        return HostHooks::default();
    };
    let list = |hooks: &Option<Vec<Hook>>| hooks.clone().unwrap_or_default();
    let mut inside = Hooks::default();
    inside.set_create_container(hooks.create_container().clone());
    inside.set_start_container(hooks.start_container().clone());
    spec.set_hooks(Some(inside));
    HostHooks {
        prestart: list(hooks.prestart()),
        create_runtime: list(hooks.create_runtime()),
        poststart: list(hooks.poststart()),
        poststop: list(hooks.poststop()),
    }
}

#[cfg(test)]
mod tests;
