//! Capabilities that a daemon keeps (capabilities(7)).

use std::io;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, getrlimit, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use thiserror::Error;

use super::SandboxError;

/// `--modcaps` cannot be understood.
#[derive(Debug, Error)]
pub enum ModifyError {
    /// No sign.
    #[error("--modcaps {item:?}: begin each name with + or -, as in +sys_admin:-chown")]
    Sign {
        /// The part that has none.
        item: String,
    },
    /// No such capability.
    #[error("--modcaps: there is no capability called {name:?} (capabilities(7))")]
    Unknown {
        /// As given.
        name: String,
    },
}

/// `set` changed by a list such as `+sys_admin:-chown`, and what the list adds. Case and a leading
/// `cap_` do not matter.
///
/// # Errors
/// See [`ModifyError`].
pub fn modify(
    mut set: CapabilitySet,
    list: &str,
) -> Result<(CapabilitySet, CapabilitySet), ModifyError> {
    let mut added = CapabilitySet::empty();
    for item in list.split(':').filter(|item| !item.is_empty()) {
        if let Some(name) = item.strip_prefix('+') {
            set |= named(name)?;
            added |= named(name)?;
        } else if let Some(name) = item.strip_prefix('-') {
            set -= named(name)?;
            added -= named(name)?;
        } else {
            return Err(ModifyError::Sign {
                item: item.to_owned(),
            });
        }
    }
    Ok((set, added))
}

fn named(name: &str) -> Result<CapabilitySet, ModifyError> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    CapabilitySet::from_name(short).ok_or_else(|| ModifyError::Unknown {
        name: name.to_owned(),
    })
}

/// Makes sure that what was asked for by name can be kept. To be called before the sandbox is
/// entered; a user namespace has other capabilities.
///
/// # Errors
/// Names what is missing.
pub fn require(wanted: CapabilitySet) -> Result<(), SandboxError> {
    let had = capabilities(None).map_err(failed)?.permitted;
    let missing: Vec<String> = (wanted - had)
        .iter_names()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(SandboxError::NoCapability(missing.join(", ")))
    }
}

/// Gives up every capability but `keep`, for good: also for programs that the process would run. An
/// ordinary user has none to give up and keeps its bounding set, which is worth nothing then.
pub(super) fn confine(keep: CapabilitySet) -> Result<(), SandboxError> {
    let had = capabilities(None).map_err(failed)?;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        for number in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if keep.contains(capability) {
                continue;
            }
            match remove_capability_from_bounding_set(capability) {
                // The kernel has no capability of this number.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
    clear_ambient_capability_set().map_err(failed)?;
    shut_memory().map_err(SandboxError::Dumpable)?;
    let left = had.permitted & keep;
    let sets = CapabilitySets {
        effective: left,
        permitted: left,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(failed)?;
    set_no_new_privs(true).map_err(failed)
}

/// Makes the process one whose memory nobody sees but root: no core file, no tracing by others of its user
/// (PR_SET_DUMPABLE in prctl(2)). A limit for core files that is not 0 was set by somebody who wants them;
/// guests' memory is in none.
fn shut_memory() -> io::Result<()> {
    if getrlimit(Resource::Core).current == Some(0) {
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}

fn failed(errno: Errno) -> SandboxError {
    SandboxError::Capabilities(errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_adds_and_drops() {
        let set = CapabilitySet::CHOWN | CapabilitySet::FOWNER;
        let (changed, added) = modify(set, "+sys_admin:-chown:+CAP_MKNOD:").unwrap();
        let expected = CapabilitySet::FOWNER | CapabilitySet::SYS_ADMIN | CapabilitySet::MKNOD;
        assert_eq!(changed, expected);
        assert_eq!(added, CapabilitySet::SYS_ADMIN | CapabilitySet::MKNOD);
        assert_eq!(modify(set, "").unwrap().0, set);
        assert!(matches!(
            modify(set, "chown"),
            Err(ModifyError::Sign { .. })
        ));
        assert!(matches!(
            modify(set, "+fly"),
            Err(ModifyError::Unknown { .. })
        ));
    }
}
