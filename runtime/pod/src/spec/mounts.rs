//! Mounts: the host's files by way of the shared directory, the kernel's file systems as they are.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};
use ringside_protocol::agent::{Storage, storage};

use rustix::fs::statfs;

use super::{GUEST_MEMORY, GUEST_SHM, SpecError};
use crate::directory::is_name;
use crate::share::{self, Bind};

/// File systems that the guest's kernel makes itself.
const OF_THE_GUEST: [&str; 7] = [
    "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2",
];

/// Of these the guest has its own; the host's would tell the guest about the host.
const OWN_DIRECTORIES: [&str; 3] = ["/proc", "/sys", "/dev"];

/// `f_type` of a tmpfs (statfs(2)).
const TMPFS: i64 = 0x0102_1994;

/// Above each `emptyDir` of a pod, in kubelet's directory.
const EMPTY_DIRECTORIES: &str = "kubernetes.io~empty-dir";

/// Rewrites the mounts in place; returns what is to be bound for them, and what is to be mounted in the guest.
pub(super) fn translate(
    spec: &mut Spec,
    container: &str,
    bundle: &Path,
) -> Result<(Vec<Bind>, Vec<Storage>), SpecError> {
    let mut binds = Vec::new();
    let mut storages = Vec::new();
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if let Some(memory) = in_memory(mount, bundle) {
            mount.set_source(Some(PathBuf::from(&memory.mount_point)));
            storages.push(memory);
        } else if is_bind(mount) {
            let source = bind(mount, container, bundle, &mut binds)?;
            mount.set_source(Some(source));
        } else if !mount
            .typ()
            .as_deref()
            .is_some_and(|it| OF_THE_GUEST.contains(&it))
        {
            return Err(SpecError::MountType {
                destination: mount.destination().clone(),
                kind: mount.typ().clone().unwrap_or_default(),
            });
        }
    }
    Ok((binds, storages))
}

/// An `emptyDir` with medium Memory: kubelet mounts a tmpfs with its size, and nobody but the pod's containers
/// needs it. What is not empty is somebody's on the host, and is shared.
fn in_memory(mount: &Mount, bundle: &Path) -> Option<Storage> {
    let source = mount.source().as_ref().filter(|_| is_bind(mount))?;
    let source = bundle.join(source);
    let folder = source.parent()?;
    if !folder.ends_with(EMPTY_DIRECTORIES) || fs::read_dir(&source).ok()?.next().is_some() {
        return None;
    }
    let system = statfs(&source).ok()?;
    let about = fs::metadata(&source).ok()?;
    // A tmpfs of its own: kubelet's whole directory may be in memory.
    if system.f_type != TMPFS || about.dev() == fs::metadata(folder).ok()?.dev() {
        return None;
    }
    let size = u64::try_from(system.f_bsize)
        .ok()?
        .saturating_mul(system.f_blocks);
    let mut options = vec![format!("mode={:o}", about.mode() & 0o7777)];
    options.extend([
        format!("uid={}", about.uid()),
        format!("gid={}", about.gid()),
    ]);
    // Without a limit of its own it is the host's half memory, and the guest's half in the guest.
    if system.f_blocks > 0 {
        options.push(format!("size={size}"));
    }
    // The number tells it from others of the same name, for as long as the pod has it.
    let name = source.file_name()?.to_str().filter(|it| is_name(it))?;
    Some(Storage {
        source: Some(storage::Source::Tmpfs(true)),
        options,
        mount_point: format!("{GUEST_MEMORY}/{name}-{}", about.dev()),
        of_pod: true,
        ..Storage::default()
    })
}

/// Where the guest has a bind mount's source.
fn bind(
    mount: &Mount,
    container: &str,
    bundle: &Path,
    binds: &mut Vec<Bind>,
) -> Result<PathBuf, SpecError> {
    let destination = mount.destination();
    if destination == Path::new("/dev/shm") {
        return Ok(GUEST_SHM.into());
    }
    let source = mount.source().as_ref();
    let source = source.ok_or_else(|| SpecError::NoSource(destination.clone()))?;
    let source = bundle.join(source);
    if is_own(&source) {
        return Ok(source);
    }
    binds.push(Bind {
        source,
        recursive: has_option(mount, "rbind"),
        read_only: has_option(mount, "ro"),
    });
    Ok(share::mount_point(container, binds.len() - 1))
}

/// Whether the guest has its own of this. Memory that the host's programs share is files like any other.
fn is_own(source: &Path) -> bool {
    OWN_DIRECTORIES.iter().any(|own| source.starts_with(own)) && !source.starts_with("/dev/shm")
}

fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || has_option(mount, "bind")
        || has_option(mount, "rbind")
}

fn has_option(mount: &Mount, name: &str) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    options.iter().any(|option| option == name)
}
