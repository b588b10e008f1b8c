//! What an ordinary user lacks, said before anything is done.

use ringside_pod::spec;
use rustix::thread::{CapabilitySet, capabilities};

use super::OciError;

/// Refuses a container that this user cannot have.
///
/// # Errors
/// With what is missing and for what.
pub(super) fn check(specification: &oci_spec::runtime::Spec) -> Result<(), OciError> {
    let have = capabilities(None).map_err(OciError::system("read this process's capabilities"))?;
    let network = spec::network_namespace(specification).is_some();
    match missing(have.effective, network) {
        None => Ok(()),
        Some(reason) => Err(OciError::usage(format!(
            "this user cannot create a container: {reason}; be root, or use `ringside run`"
        ))),
    }
}

/// Why these capabilities do not do, for a pod with or without a network of the host's.
fn missing(have: CapabilitySet, network: bool) -> Option<&'static str> {
    if !have.contains(CapabilitySet::SYS_ADMIN) {
        return Some(
            "the directories that its machine sees are bind mounts in a mount namespace of the pod's, \
             which needs CAP_SYS_ADMIN",
        );
    }
    if network && !have.contains(CapabilitySet::NET_ADMIN) {
        return Some(
            "its network namespace has interfaces that are to be wired to taps, which needs CAP_NET_ADMIN",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lack_is_named() {
        let admin = CapabilitySet::SYS_ADMIN;
        let reason = |have, network| missing(have, network).unwrap_or_default();
        assert!(reason(CapabilitySet::empty(), false).contains("CAP_SYS_ADMIN"));
        assert!(reason(admin, true).contains("CAP_NET_ADMIN"));
        assert_eq!(missing(admin, false), None);
        assert_eq!(missing(admin | CapabilitySet::NET_ADMIN, true), None);
    }
}
