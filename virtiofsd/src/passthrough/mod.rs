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
mod descend;
mod descriptors;
mod directories;
mod file_handles;
mod file_system;
mod guest_file_system;
mod handles;
mod id_translation;
mod inode;
mod inodes;
mod labels;
mod leftovers;
mod locks;
mod migration;
mod moves;
mod named;
mod names;
mod node_limit;
mod open;
mod place;
mod proof;
mod restore;
mod set_id;
mod stable;
#[cfg(test)]
mod tests;
mod version;
mod warm;
mod xattr_map;
mod xattrs;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fuse_backend_rs::abi::fuse_abi::stat64;
use fuse_backend_rs::api::filesystem::Entry;
use rustix::fs::{Mode, OFlags};
use thiserror::Error;

use crate::fuse::Features;
use crate::keeper::Keeper;
use crate::medium::Media;
use crate::sys::{FileHandle, FileStatus, status_of};
use descriptors::DescriptorDirectory;
use handles::HandleTable;
use inode::Inode;
use inodes::InodeTable;
use leftovers::Leftovers;
use locks::Locks;
use node_limit::NodeLimit;
use place::Places;

pub use config::{
    CachePolicy, Config, MAX_NODES, MigrationConfig, MigrationMode, OnMigrationError,
};
pub use file_handles::FileHandles;
pub use id_translation::{IdTranslation, Overlap, Span, TranslationRule, TranslationRuleError};
pub use xattr_map::{XattrMap, XattrMapError};

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
    /// Handles were asked for and cannot be had.
    #[error(
        "--inode-file-handles=mandatory: {path} cannot be opened by file handle, which takes a \
         file system that has them and CAP_DAC_READ_SEARCH"
    )]
    FileHandles {
        /// The shared directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Serves a directory of the host.
pub struct Passthrough {
    config: Config,
    inodes: InodeTable,
    handles: HandleTable,
    media: Media,
    locks: Locks,
    leftovers: Leftovers,
    descriptors: DescriptorDirectory,
    places: Places,
    /// The daemon may create files for other users.
    privileged: bool,
    /// What was agreed on in `INIT`.
    agreed: AtomicU64,
    /// Holds what has no name, too.
    keeper: Option<Keeper>,
}

impl Passthrough {
    /// Opens the shared directory.
    ///
    /// # Errors
    /// When it, or /proc, cannot be opened.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let descriptors = DescriptorDirectory::open().map_err(OpenError::Descriptors)?;
        Self::with(config, descriptors)
    }

    /// Opens the shared directory where /proc is out of reach. `descriptors` is the process' own
    /// /proc/self/fd, open with `O_PATH`.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn open_with(config: Config, descriptors: OwnedFd) -> Result<Self, OpenError> {
        Self::with(config, DescriptorDirectory::from(descriptors))
    }

    fn with(config: Config, descriptors: DescriptorDirectory) -> Result<Self, OpenError> {
        let failed = |source: io::Error| OpenError::SharedDirectory {
            path: config.shared_directory.clone(),
            source,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&config.shared_directory, flags, Mode::empty())
            .map_err(|errno| failed(errno.into()))?;
        // A directory that cannot be listed would show itself to the guest as an empty mount.
        let listed = descriptors
            .reopen(&root, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(failed)?;
        let places = Places::new(config.file_handles, config.max_open);
        let mount = places.use_mount(&status_of(&root).map_err(failed)?, listed);
        if config.file_handles == FileHandles::Mandatory {
            FileHandle::of(&root)
                .and_then(|handle| handle.open(&mount))
                .map_err(|source| OpenError::FileHandles {
                    path: config.shared_directory.clone(),
                    source,
                })?;
        }
        let limit = NodeLimit::new(config.max_nodes);
        let inodes = InodeTable::new(root, &places, limit).map_err(failed)?;
        Ok(Self {
            config,
            inodes,
            handles: HandleTable::default(),
            media: Media::default(),
            locks: Locks::default(),
            leftovers: Leftovers::default(),
            descriptors,
            places,
            privileged: rustix::process::geteuid().is_root(),
            agreed: AtomicU64::new(Features::NONE.bits()),
            keeper: None,
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

    /// Whether this was agreed on with the guest's kernel.
    fn agreed(&self, feature: Features) -> bool {
        Features::from_bits(self.agreed.load(Ordering::Relaxed)).contains(feature)
    }

    /// The guest's kernel writes back when it likes.
    fn writeback(&self) -> bool {
        self.agreed(Features::WRITEBACK_CACHE)
    }

    /// A node's file has no name: has the keeper hold it, if there is one.
    fn hold(&self, node: &Inode, file: impl AsFd) {
        if let Some(keeper) = &self.keeper
            && keeper.hold(node.id, file.as_fd())
        {
            node.is_held.store(true, Ordering::Relaxed);
        }
    }

    /// Attributes as the guest is to see them.
    fn shown(&self, mut attributes: stat64) -> stat64 {
        attributes.st_uid = self.config.users.to_guest(attributes.st_uid);
        attributes.st_gid = self.config.groups.to_guest(attributes.st_gid);
        attributes
    }

    /// The reply about a node that has just been counted as looked up.
    fn entry(&self, inode: &Arc<Inode>, status: &FileStatus) -> Entry {
        Entry {
            inode: inode.id,
            // Node numbers are never used again.
            generation: 0,
            attr: self.shown(status.attributes),
            attr_flags: 0,
            attr_timeout: self.config.cache.timeout(),
            entry_timeout: self.config.cache.timeout(),
        }
    }
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
