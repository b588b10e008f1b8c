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
//!
//! A daemon that serves no directory needs no other process: an [`Enclosure`] closes it in where it
//! is.

pub mod capabilities;
mod enclosure;
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
pub use enclosure::{Enclosure, Files};
pub use error::SandboxError;
pub use id_map::{IdMap, IdMapError, IdMaps};
pub use options::{
    EnclosureConfig, EnclosureOptions, Isolation, Mode, SandboxConfig, SandboxOptions,
};
pub use sys::close_inherited;
use waiter::Outside;

/// How a daemon that serves a directory is to be closed in.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// By which means.
    pub mode: Mode,
    /// The directory: the root of what is visible. Device nodes in it cannot be opened and programs
    /// not run, whatever their mode.
    pub directory: PathBuf,
    /// No change of it is possible.
    pub read_only: bool,
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
    /// Where the directory is now.
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
        check_directory(&self.directory, self.ids.is_empty())?;
        match self.mode {
            Mode::None => {
                confine(self.capabilities)?;
                Ok(self.inside(files, open_descriptors()?, self.directory.clone()))
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
        namespaces::change_root(&self.directory)?;
        sys::leave_groups();
        confine(self.capabilities)?;
        outside.tie()?;
        Ok(self.inside(Vec::new(), descriptors, "/".into()))
    }

    fn enter_namespaces(&self, root: bool, files: Vec<SocketFile>) -> Result<Inside, SandboxError> {
        if !root {
            self.ids.enter_user_namespace()?;
        }
        let outside = Outside::split(UnshareFlags::NEWPID, files)?;
        let descriptors = namespaces::see_only(&self.directory, self.read_only)?;
        if !root {
            sys::become_root_if_mapped();
        }
        sys::leave_groups();
        confine(self.capabilities)?;
        outside.tie()?;
        Ok(self.inside(Vec::new(), descriptors, "/".into()))
    }

    fn inside(&self, files: Vec<SocketFile>, descriptors: OwnedFd, directory: PathBuf) -> Inside {
        tracing::debug!(mode = ?self.mode, capabilities = ?self.capabilities, "closed in");
        Inside {
            descriptors,
            directory,
            files,
        }
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
