//! A further process under its container's seccomp filter.
//!
//! libcontainer gives the filter to a container's first process only. Here it is loaded at the last moment,
//! before the program begins.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result};
use libcontainer::oci_spec::runtime::{Capability, LinuxSeccomp, Process, Spec};
use libcontainer::seccomp::initialize_seccomp;
use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};

/// Starts a program as libcontainer does, under a filter where there is one.
#[derive(Clone)]
pub(super) struct Filtered(pub(super) Option<LinuxSeccomp>);

impl Executor for Filtered {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        if let Some(filter) = &self.0 {
            let loaded = initialize_seccomp(filter);
            loaded.map_err(|error| {
                ExecutorError::Other(format!("cannot load the seccomp filter: {error}"))
            })?;
        }
        DefaultExecutor {}.exec(spec)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        DefaultExecutor {}.validate(spec)
    }
}

/// The container's filter.
pub(super) fn of(spec: &Spec) -> Option<LinuxSeccomp> {
    spec.linux().as_ref()?.seccomp().clone()
}

/// Lets a process load a filter that would not be allowed to: without no_new_privs that takes
/// CAP_SYS_ADMIN (seccomp(2)). It has it until its program begins and not longer, for execve(2) computes
/// capabilities anew from the other sets (capabilities(7)), which stay as they are.
pub(super) fn allow_loading(process: &mut Process) {
    let Some(mut capabilities) = process.capabilities().clone() else {
        // Nothing is taken from it, then.
        return;
    };
    if process.no_new_privileges() == Some(true) {
        return;
    }
    let with = |set: &Option<HashSet<Capability>>| {
        let mut set = set.clone().unwrap_or_default();
        set.insert(Capability::SysAdmin);
        Some(set)
    };
    let (effective, permitted) = (
        with(capabilities.effective()),
        with(capabilities.permitted()),
    );
    capabilities
        .set_effective(effective)
        .set_permitted(permitted);
    process.set_capabilities(Some(capabilities));
}

/// Reads, changes and writes back a `process` object.
pub(super) fn change(path: &Path, change: impl FnOnce(&mut Process)) -> Result<()> {
    let text = std::fs::read(path).context("cannot read the process's description")?;
    let mut process: Process = serde_json::from_slice(&text).context("process")?;
    change(&mut process);
    std::fs::write(path, serde_json::to_vec(&process)?)
        .context("cannot write the process's description")
}
