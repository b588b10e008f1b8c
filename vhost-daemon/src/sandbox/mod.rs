//! Closing a daemon in before it serves the first guest.
//!
//! A process that a guest has taken over should find nothing to take further: no file but those it
//! serves, no network, no other process, no capability it does not need, no system call that its
//! threads do not make ([`seccomp`]).
//!
//! Order matters. Sockets are bound and signal handlers installed before, for both are out of reach
//! afterwards; [`Sandbox::enter`] then splits the process in two. The one that returns is inside.
//! The other stays outside, as the process that was started: it passes signals on, removes the
//! sockets' files at the end and ends as the inner one did. It holds no descriptor and meets no byte
//! of a guest's.

pub mod capabilities;
mod error;
mod id_map;
mod namespaces;
mod options;
pub mod seccomp;
mod sys;
mod waiter;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::listen::SocketFile;
use capabilities::confine;
pub use error::SandboxError;
pub use id_map::{IdMap, IdMapError, IdMaps};
pub use options::{Mode, SandboxConfig, SandboxOptions};
pub use sys::close_inherited;
use waiter::Outside;

/// What a daemon still sees of the host's files.
#[derive(Clone, Debug)]
pub enum View {
    /// This directory, as the root; read-only on demand. Device nodes in it cannot be opened and
    /// programs not run, whatever their mode.
    Directory {
        /// The directory.
        path: PathBuf,
        /// No change is possible.
        read_only: bool,
    },
    /// All, for a daemon that opens paths on demand while it runs (a control socket). Namespaces
    /// other than the mounts', capabilities and seccomp still close it in.
    Host,
}

/// How a daemon is to be closed in.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// By which means.
    pub mode: Mode,
    /// What stays visible.
    pub view: View,
    /// Whose ids an ordinary user's namespace has.
    pub ids: IdMaps,
    /// What it may keep, of what it has.
    pub capabilities: CapabilitySet,
}

/// What the process inside goes on with.
#[derive(Debug)]
pub struct Inside {
    /// The process' own `/proc/self/fd`, open with `O_PATH`; nothing else of /proc can be reached
    /// from it where a namespace was made.
    pub descriptors: OwnedFd,
    /// Where the directory of [`View::Directory`] is now.
    pub directory: PathBuf,
    /// Sockets' files that are this process' to remove: none if another process stays outside.
    pub files: Vec<SocketFile>,
}

impl Sandbox {
    /// Closes the process in. To be called while it has one thread. `files` are removed at the end,
    /// by whoever can still reach them.
    ///
    /// With [`Mode::Namespace`] and [`Mode::Chroot`] it is another process that returns; see the
    /// module.
    ///
    /// # Errors
    /// When what was asked for cannot be had. An error inside ends the process outside, too.
    pub fn enter(&self, files: Vec<SocketFile>) -> Result<Inside, SandboxError> {
        let root = rustix::process::geteuid().is_root();
        if !self.ids.is_empty() && (root || self.mode != Mode::Namespace) {
            return Err(SandboxError::MapsWithoutNamespace);
        }
        if let View::Directory { path, .. } = &self.view {
            check_directory(path, self.ids.is_empty())?;
        }
        match self.mode {
            Mode::None => {
                confine(self.capabilities)?;
                self.inside(files, open_descriptors()?, None)
            }
            Mode::Chroot => self.enter_chroot(root, files),
            Mode::Namespace => self.enter_namespaces(root, files),
        }
    }

    fn enter_chroot(&self, root: bool, files: Vec<SocketFile>) -> Result<Inside, SandboxError> {
        if !root {
            return Err(SandboxError::ChrootNeedsRoot);
        }
        let outside = Outside::split(UnshareFlags::empty(), files)?;
        let descriptors = open_descriptors()?;
        let mut directory = None;
        if let View::Directory { path, .. } = &self.view {
            namespaces::change_root(path)?;
            directory = Some("/".into());
        }
        sys::leave_groups();
        confine(self.capabilities)?;
        outside.tie()?;
        self.inside(Vec::new(), descriptors, directory)
    }

    fn enter_namespaces(&self, root: bool, files: Vec<SocketFile>) -> Result<Inside, SandboxError> {
        if !root {
            self.ids.enter_user_namespace()?;
        }
        let outside = Outside::split(UnshareFlags::NEWPID, files)?;
        let mut directory = None;
        let descriptors = match &self.view {
            View::Directory { path, read_only } => {
                directory = Some("/".into());
                namespaces::see_only(path, *read_only)?
            }
            View::Host => {
                namespaces::leave_network()?;
                open_descriptors()?
            }
        };
        if !root {
            sys::become_root_if_mapped();
        }
        sys::leave_groups();
        confine(self.capabilities)?;
        outside.tie()?;
        self.inside(Vec::new(), descriptors, directory)
    }

    fn inside(
        &self,
        files: Vec<SocketFile>,
        descriptors: OwnedFd,
        directory: Option<PathBuf>,
    ) -> Result<Inside, SandboxError> {
        let directory = directory.unwrap_or_else(|| match &self.view {
            View::Directory { path, .. } => path.clone(),
            View::Host => "/".into(),
        });
        tracing::debug!(mode = ?self.mode, capabilities = ?self.capabilities, "closed in");
        Ok(Inside {
            descriptors,
            directory,
            files,
        })
    }
}

/// Said before the process splits, and by the name that was given. Whether the directory may be
/// `read` is another question for other ids than one's own.
fn check_directory(path: &Path, read: bool) -> Result<(), SandboxError> {
    let how = if read { OFlags::RDONLY } else { OFlags::PATH };
    let flags = how | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, FileMode::empty()).map_err(|errno| SandboxError::Directory {
        path: path.to_owned(),
        source: errno.into(),
    })?;
    Ok(())
}

fn open_descriptors() -> Result<OwnedFd, SandboxError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(c"/proc/self/fd", flags, FileMode::empty())
        .map_err(|errno| SandboxError::Descriptors(errno.into()))
}
