//! A directory of the host, as it is.
//!
//! Every node the guest knows is an `O_PATH` descriptor. Names are looked up one component at a
//! time, from the descriptor of their directory, and never through a symbolic link: the guest's
//! kernel walks paths, the host never does.

mod attributes;
mod budget;
mod config;
mod create;
mod data;
mod descriptors;
mod directories;
mod file_system;
mod guest_file_system;
mod handles;
mod inodes;
mod names;
mod open;
mod place;
mod set_id;
#[cfg(test)]
mod tests;
mod version;
mod xattrs;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuse_backend_rs::api::filesystem::Entry;
use rustix::fs::{Mode, OFlags};
use thiserror::Error;

use crate::sys::{FileStatus, status_of};
use descriptors::DescriptorDirectory;
use handles::HandleTable;
use inodes::{Inode, InodeTable};
use place::Places;

pub use config::{CachePolicy, Config};

/// The directory cannot be shared.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It cannot be opened.
    #[error("cannot open the shared directory {path}")]
    SharedDirectory {
        /// As given.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// /proc is not mounted, or hides the process from itself.
    #[error("cannot open /proc/self/fd, which re-opening files needs")]
    Descriptors(#[source] io::Error),
}

/// Serves a directory of the host.
pub struct Passthrough {
    config: Config,
    inodes: InodeTable,
    handles: HandleTable,
    descriptors: DescriptorDirectory,
    places: Places,
    /// The daemon may create files for other users.
    privileged: bool,
    /// The guest's kernel writes back when it likes: agreed on in `INIT`.
    writeback: AtomicBool,
}

impl Passthrough {
    /// Opens the shared directory.
    ///
    /// # Errors
    /// When it, or /proc, cannot be opened.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let failed = |source: io::Error| OpenError::SharedDirectory {
            path: config.shared_directory.clone(),
            source,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&config.shared_directory, flags, Mode::empty())
            .map_err(|errno| failed(errno.into()))?;
        let descriptors = DescriptorDirectory::open().map_err(OpenError::Descriptors)?;
        // A directory that cannot be listed would show itself to the guest as an empty mount.
        let listed = descriptors
            .reopen(&root, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(failed)?;
        let places = Places::new(config.max_open);
        places.use_mount(&status_of(&root).map_err(failed)?, listed);
        let inodes = InodeTable::new(root, &places).map_err(failed)?;
        Ok(Self {
            config,
            inodes,
            handles: HandleTable::default(),
            descriptors,
            places,
            privileged: rustix::process::geteuid().is_root(),
            writeback: AtomicBool::new(false),
        })
    }

    /// How many nodes the guest knows, the root included.
    pub fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    /// How many files and directories the guest has open.
    pub fn handle_count(&self) -> usize {
        self.handles.len()
    }

    /// Refuses changes where none are wanted.
    fn writable(&self) -> io::Result<()> {
        if self.config.read_only {
            Err(errno(libc::EROFS))
        } else {
            Ok(())
        }
    }

    fn writeback(&self) -> bool {
        self.writeback.load(Ordering::Relaxed)
    }

    /// The reply about a node that has just been counted as looked up.
    fn entry(&self, inode: &Arc<Inode>, status: &FileStatus) -> Entry {
        Entry {
            inode: inode.id,
            // Node numbers are never used again.
            generation: 0,
            attr: status.attributes,
            attr_flags: 0,
            attr_timeout: self.config.cache.timeout(),
            entry_timeout: self.config.cache.timeout(),
        }
    }
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
