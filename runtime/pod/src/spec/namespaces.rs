//! Name spaces: the pod's are the guest's own.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType as Kind, Spec};

use super::SpecError;

pub(super) fn network_path(spec: &Spec) -> Option<PathBuf> {
    let all = spec.linux().as_ref()?.namespaces().as_deref()?;
    let network = all.iter().find(|it| it.typ() == Kind::Network)?;
    network
        .path()
        .clone()
        .filter(|path| !path.as_os_str().is_empty())
}

pub(super) fn translate(spec: &mut Spec) -> Result<(), SpecError> {
    let linux = spec.linux_mut().as_mut().ok_or(SpecError::NoLinux)?;
    let asked = linux.namespaces().clone().unwrap_or_default();
    if !asked.iter().any(|it| it.typ() == Kind::Network) {
        return Err(SpecError::HostNetwork);
    }
    let mut kept = Vec::new();
    for namespace in asked {
        if let Some(it) = in_guest(namespace)? {
            kept.push(it);
        }
    }
    let own_host_name = kept.iter().any(|it| it.typ() == Kind::Uts);
    linux.set_namespaces(Some(kept));
    if !own_host_name {
        // It would be set for the whole pod, which has its own.
        spec.set_hostname(None);
        spec.set_domainname(None);
    }
    Ok(())
}

/// The same name space as the guest shall make it; `None` where the container has the guest's own.
fn in_guest(mut namespace: LinuxNamespace) -> Result<Option<LinuxNamespace>, SpecError> {
    let path = namespace.path().clone();
    let path = path.filter(|path| !path.as_os_str().is_empty());
    let refused = |kind, path| Err(SpecError::Namespace { kind, path });
    match (namespace.typ(), path) {
        (Kind::Network, _) => Ok(None),
        (Kind::Ipc | Kind::Uts | Kind::Cgroup | Kind::Time, Some(_)) => Ok(None),
        (Kind::Pid, Some(_)) => {
            // The pod's, by the agent's protocol.
            namespace.set_path(Some(PathBuf::new()));
            Ok(Some(namespace))
        }
        (Kind::User, Some(path)) => refused("user", path),
        (Kind::Mount, Some(path)) => refused("mount", path),
        (_, None) => {
            namespace.set_path(None);
            Ok(Some(namespace))
        }
    }
}
