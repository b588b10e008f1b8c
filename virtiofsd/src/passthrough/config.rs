//! What a shared directory is served like.

use std::path::PathBuf;
use std::time::Duration;

use fuse_backend_rs::api::filesystem::OpenOptions;

use super::{FileHandles, IdTranslation, XattrMap};

/// How long, and what, the guest's kernel caches. The policies and their times are those of the
/// virtiofsd that people use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CachePolicy {
    /// Names and attributes for a second, data until the file changes
    Auto,
    /// Everything: the guest is the only one that uses the directory
    Always,
    /// Nothing
    Never,
    /// Names and attributes like `always`, data never
    Metadata,
}

impl CachePolicy {
    /// How long names and attributes stay valid.
    pub fn timeout(self) -> Duration {
        match self {
            Self::Never => Duration::ZERO,
            Self::Auto => Duration::from_secs(1),
            Self::Always | Self::Metadata => Duration::from_hours(24),
        }
    }

    /// How the guest's kernel treats a file that it has opened.
    pub(super) fn file_options(self) -> OpenOptions {
        match self {
            Self::Never | Self::Metadata => OpenOptions::DIRECT_IO,
            Self::Auto => OpenOptions::empty(),
            Self::Always => OpenOptions::KEEP_CACHE,
        }
    }

    /// How the guest's kernel treats a directory that it has opened.
    pub(super) fn directory_options(self) -> OpenOptions {
        match self {
            Self::Never | Self::Auto => OpenOptions::empty(),
            Self::Always | Self::Metadata => OpenOptions::CACHE_DIR | OpenOptions::KEEP_CACHE,
        }
    }
}

/// Most nodes, unless told otherwise. Linux takes more than a KiB of a guest's memory for each file that it
/// keeps cached, and forgets some when that gets short: only a guest with far more than 16 GiB can know so
/// many. docs/virtiofs.md tells what they cost here.
pub const MAX_NODES: usize = 16 << 20;

/// What to serve, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory.
    pub shared_directory: PathBuf,
    /// What the guest's kernel caches.
    pub cache: CachePolicy,
    /// Let the guest's kernel write back when it likes.
    pub writeback: bool,
    /// Let the guest's kernel map files that bypass its cache.
    pub allow_mmap: bool,
    /// A guest's `O_DIRECT` bypasses the host's cache.
    pub direct_io: bool,
    /// Refuse every change.
    pub read_only: bool,
    /// Serve extended attributes.
    pub xattr: bool,
    /// Other names for them; as they are, if `None`.
    pub xattr_map: Option<XattrMap>,
    /// Clear set-id bits here (`FUSE_HANDLE_KILLPRIV_V2`).
    pub kill_privileges: bool,
    /// Keep a guest's `O_NOATIME`.
    pub preserve_noatime: bool,
    /// Serve POSIX ACLs; the guest's kernel checks them.
    pub posix_acl: bool,
    /// Give new files the security label that the guest's kernel sends with them.
    pub security_label: bool,
    /// Tell guests where other file systems are mounted on the host.
    pub announce_submounts: bool,
    /// Serve `fcntl` locks, which then hold between guests and on the host.
    pub posix_lock: bool,
    /// Serve `flock` locks, likewise.
    pub flock: bool,
    /// List directories with their entries' attributes where the guest's kernel thinks it is
    /// worth it.
    pub readdirplus: bool,
    /// When nodes are kept by file handle.
    pub file_handles: FileHandles,
    /// Most open files for nodes that guests cache; more are kept by file handle or name. Half of the limit
    /// of open files, if `None`.
    pub max_open: Option<usize>,
    /// Most nodes that guests may have at a time, the root included; any number, if `None`.
    pub max_nodes: Option<usize>,
    /// Other users for the guest than the host's.
    pub users: IdTranslation,
    /// Other groups for the guest than the host's.
    pub groups: IdTranslation,
    /// How nodes move to another daemon.
    pub migration: MigrationConfig,
}

/// How the other daemon finds a node. The ways are those of the virtiofsd that people use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MigrationMode {
    /// By its path in the shared directory
    #[default]
    FindPaths,
    /// By its file handle: both daemons share one file system, and trust each other
    FileHandles,
}

/// What becomes of a migration when a node cannot be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnMigrationError {
    /// It fails, and the guest goes on where it was
    #[default]
    Abort,
    /// It goes on, and the guest gets errors for the node
    GuestError,
}

/// How nodes move to another daemon.
#[derive(Clone, Copy, Debug, Default)]
pub struct MigrationConfig {
    /// How the other daemon finds them.
    pub mode: MigrationMode,
    /// What happens if it does not.
    pub on_error: OnMigrationError,
    /// Files must have the same handle there as here.
    pub verify: bool,
}

impl Config {
    /// The defaults, for `shared_directory`.
    pub fn new(shared_directory: impl Into<PathBuf>) -> Self {
        Self {
            shared_directory: shared_directory.into(),
            cache: CachePolicy::Auto,
            writeback: false,
            allow_mmap: false,
            direct_io: false,
            read_only: false,
            xattr: true,
            xattr_map: None,
            kill_privileges: true,
            preserve_noatime: false,
            posix_acl: false,
            security_label: false,
            announce_submounts: false,
            posix_lock: false,
            flock: false,
            readdirplus: true,
            file_handles: FileHandles::AsNeeded,
            max_open: None,
            max_nodes: Some(MAX_NODES),
            users: IdTranslation::default(),
            groups: IdTranslation::default(),
            migration: MigrationConfig::default(),
        }
    }
}
