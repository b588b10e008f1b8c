//! Closing in a daemon that stays the process it is.
//!
//! Its files are open already, or are opened on demand while it runs, so there is no directory to be
//! the root of what it sees. What is taken instead: the network, capabilities, and by Landlock every
//! way to change the host's files that it does not need.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::thread::CapabilitySet;

use super::capabilities::{confine, require};
use super::namespaces::leave_network;
use super::options::EnclosureConfig;
use super::{IdMaps, SandboxError, sys};

/// The Landlock that is asked for: of an older kernel, what it has of that.
const LANDLOCK: ABI = ABI::V6;

/// What the daemon does with the host's files from now on.
#[derive(Clone, Debug)]
pub enum Files {
    /// It opens none. In these directories it removes files: sockets' at the end.
    RemovedFrom(Vec<PathBuf>),
    /// It opens, makes and removes what it is told to: files and sockets. It runs no program, makes no
    /// device node, directory or link, and moves nothing to another directory.
    OnDemand,
    /// As that, and it makes directories, but nothing that only a capability of root's allows.
    AsPermitted,
}

impl Files {
    /// None but the removal of these files.
    pub fn removed(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let directory = |file: PathBuf| match file.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => ".".into(),
        };
        Self::RemovedFrom(files.into_iter().map(directory).collect())
    }
}

/// How a daemon is to be closed in.
#[derive(Clone, Debug)]
pub struct Enclosure {
    /// As the options say.
    pub config: EnclosureConfig,
    /// What it still does with files.
    pub files: Files,
}

impl Enclosure {
    /// Closes the process in. To be called while it has one thread, when sockets are bound and files
    /// open.
    ///
    /// # Errors
    /// When what was asked for cannot be had.
    pub fn enter(&self) -> Result<(), SandboxError> {
        require(self.config.required)?;
        let root = rustix::process::geteuid().is_root();
        let mut capabilities = self.config.capabilities;
        if root && self.needs_override() {
            capabilities |= CapabilitySet::DAC_OVERRIDE;
        }
        if self.config.isolates {
            wait_for_one_thread()?;
            if !root {
                IdMaps::default().enter_user_namespace()?;
            }
            leave_network()?;
            self.restrict_files()?;
        }
        confine(capabilities)?;
        tracing::debug!(?capabilities, isolated = self.config.isolates, "closed in");
        Ok(())
    }

    /// Whether files are to be removed or made where only a capability of root's allows it.
    fn needs_override(&self) -> bool {
        let closed = |directory: &PathBuf| {
            let owner = rustix::fs::stat(directory).map(|stat| (stat.st_uid, stat.st_mode));
            let own = rustix::process::geteuid().as_raw();
            let writable =
                |(uid, mode): (u32, u32)| (uid == own && mode & 0o200 != 0) || mode & 0o002 != 0;
            !owner.is_ok_and(writable)
        };
        match &self.files {
            Files::RemovedFrom(directories) => directories.iter().any(closed),
            Files::OnDemand => true,
            Files::AsPermitted => false,
        }
    }

    fn restrict_files(&self) -> Result<(), SandboxError> {
        let status = self.landlock().map_err(SandboxError::Landlock)?;
        if status == RulesetStatus::NotEnforced {
            tracing::warn!(
                "this kernel has no Landlock: files are as far in reach as permissions go"
            );
        }
        Ok(())
    }

    fn landlock(&self) -> Result<RulesetStatus, RulesetError> {
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?;
        let (directories, allowed) = self.allowed();
        for directory in directories {
            // One that is gone needs no rule.
            if let Ok(directory) = PathFd::new(directory) {
                ruleset = ruleset.add_rule(PathBeneath::new(directory, allowed))?;
            }
        }
        Ok(ruleset.restrict_self()?.ruleset)
    }

    /// Beneath which directories which ways of access are left.
    fn allowed(&self) -> (Vec<&Path>, BitFlags<AccessFs>) {
        match &self.files {
            Files::RemovedFrom(directories) => (
                directories.iter().map(PathBuf::as_path).collect(),
                AccessFs::RemoveFile.into(),
            ),
            Files::OnDemand => (vec![Path::new("/")], on_demand()),
            Files::AsPermitted => (vec![Path::new("/")], on_demand() | AccessFs::MakeDir),
        }
    }
}

fn on_demand() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::WriteFile
        | AccessFs::ReadDir
        | AccessFs::Truncate
        | AccessFs::IoctlDev
        | AccessFs::MakeReg
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
}

/// A thread that was joined may still be on its way out.
fn wait_for_one_thread() -> Result<(), SandboxError> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match sys::threads().map_err(SandboxError::Split)? {
            1 => return Ok(()),
            more if Instant::now() > deadline => return Err(SandboxError::Threads(more)),
            _ => thread::sleep(Duration::from_millis(1)),
        }
    }
}
