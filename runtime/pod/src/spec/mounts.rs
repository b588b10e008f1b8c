//! Mounts: the host's files by way of the shared directory, the kernel's file systems as they are.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};

use super::{GUEST_SHM, SpecError};
use crate::share::{self, Bind};

/// File systems that the guest's kernel makes itself.
const OF_THE_GUEST: [&str; 7] = [
    "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2",
];

/// Of these the guest has its own; the host's would tell the guest about the host.
const OWN_DIRECTORIES: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Rewrites the mounts in place; returns what is to be bound for them.
pub(super) fn translate(
    spec: &mut Spec,
    container: &str,
    bundle: &Path,
) -> Result<Vec<Bind>, SpecError> {
    let mut binds = Vec::new();
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if is_bind(mount) {
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
    Ok(binds)
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
