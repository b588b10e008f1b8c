//! The options that say how a daemon is closed in.

use clap::{Args, ValueEnum};
use rustix::thread::CapabilitySet;

use super::capabilities::{ModifyError, modify};
use super::seccomp::Action;

/// By which means a daemon is closed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Namespaces of its own (mount, pid, network, IPC; user, for an ordinary user) and the
    /// directory as the root of its mounts
    Namespace,
    /// The directory as root directory: where a container has made namespaces already
    Chroot,
    /// The host's files stay in reach: for debugging
    None,
}

/// The options as typed.
#[derive(Args, Clone, Debug)]
pub struct SandboxOptions {
    /// How to close the daemon in
    #[arg(long, value_enum, default_value = "namespace")]
    pub sandbox: Mode,

    /// What becomes of a system call that is not on the list of its thread
    #[arg(long, value_enum, default_value = "kill")]
    pub seccomp: Action,

    /// Capabilities to keep or drop beyond the daemon's list, such as +sys_admin:-chown
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub modcaps: Option<String>,
}

/// The options as validated.
#[derive(Clone, Copy, Debug)]
pub struct SandboxConfig {
    /// By which means.
    pub mode: Mode,
    /// What becomes of other system calls.
    pub seccomp: Action,
    /// What may be kept.
    pub capabilities: CapabilitySet,
    /// What must be there: asked for by name.
    pub required: CapabilitySet,
}

impl SandboxOptions {
    /// Checks the options; `needed` are the capabilities that the daemon works with.
    ///
    /// # Errors
    /// When `--modcaps` cannot be understood.
    pub fn validate(self, needed: CapabilitySet) -> Result<SandboxConfig, ModifyError> {
        let list = self.modcaps.as_deref().unwrap_or_default();
        let (capabilities, required) = modify(needed, list)?;
        Ok(SandboxConfig {
            mode: self.sandbox,
            seccomp: self.seccomp,
            capabilities,
            required,
        })
    }
}

/// By which means a daemon without a directory is closed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Isolation {
    /// Network and IPC namespaces of its own (and a user namespace, for an ordinary user), and
    /// Landlock: files that it does not need are out of reach
    Namespace,
    /// The network and the host's files stay in reach: in a container, or for debugging
    None,
}

/// The options of a daemon that serves no directory, as typed.
#[derive(Args, Clone, Debug)]
pub struct EnclosureOptions {
    /// How to close the daemon in
    #[arg(long, value_enum, default_value = "namespace")]
    pub sandbox: Isolation,

    /// What becomes of a system call that is not on the list of its thread
    #[arg(long, value_enum, default_value = "kill")]
    pub seccomp: Action,

    /// Capabilities to keep or drop beyond the daemon's list, such as +sys_admin
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub modcaps: Option<String>,
}

/// The same as validated.
#[derive(Clone, Copy, Debug)]
pub struct EnclosureConfig {
    /// Whether network and files are taken.
    pub isolates: bool,
    /// What becomes of other system calls.
    pub seccomp: Action,
    /// What may be kept.
    pub capabilities: CapabilitySet,
    /// What must be there: asked for by name.
    pub required: CapabilitySet,
}

impl EnclosureOptions {
    /// Checks the options; `needed` are the capabilities that the daemon works with.
    ///
    /// # Errors
    /// When `--modcaps` cannot be understood.
    pub fn validate(self, needed: CapabilitySet) -> Result<EnclosureConfig, ModifyError> {
        let list = self.modcaps.as_deref().unwrap_or_default();
        let (capabilities, required) = modify(needed, list)?;
        Ok(EnclosureConfig {
            isolates: self.sandbox == Isolation::Namespace,
            seccomp: self.seccomp,
            capabilities,
            required,
        })
    }
}
