//! The command line: what was typed.

mod compat;
mod config;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::Parser;
use vhost_daemon::options::CommonOptions;
use vhost_daemon::sandbox::{IdMap, SandboxOptions};

use crate::keeper::KeeperOptions;
use crate::passthrough::{
    CachePolicy, FileHandles, MAX_NODES, MigrationMode, OnMigrationError, TranslationRule, XattrMap,
};

pub use compat::CompatError;
pub use config::{ConfigError, DaemonConfig};

/// What `--print-capabilities` says (QEMU, docs/interop/vhost-user.json). `separate-options`: libvirt
/// need not use `-o`.
pub const CAPABILITIES: &str = r#"{
  "type": "fs",
  "features": [
    "separate-options"
  ]
}"#;

/// What to do other than to serve a directory.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Action {
    /// Holds files without a name for a daemon that may be killed (--state-dir, --keeper)
    Keep(KeeperOptions),
}

/// Shares a directory of the host with virtual machines (vhost-user, virtio-fs).
#[derive(Debug, Parser)]
#[command(
    name = "virtiofsd",
    version,
    args_override_self = true,
    args_conflicts_with_subcommands = true
)]
pub struct Options {
    /// What to do other than to serve a directory.
    #[command(subcommand)]
    pub action: Option<Action>,

    /// Options that all daemons share.
    #[command(flatten)]
    pub common: CommonOptions,

    /// How the daemon is closed in.
    #[command(flatten)]
    pub sandbox: SandboxOptions,

    /// Directory to share
    #[arg(long, value_name = "DIR")]
    pub shared_dir: Option<PathBuf>,

    /// Name of the file system in guests (mount -t virtiofs TAG DIR), where the front end sets none
    #[arg(long, value_name = "TAG", default_value = "ringside")]
    pub tag: String,

    /// What guests cache
    #[arg(long, value_enum, default_value = "auto")]
    pub cache: CachePolicy,

    /// Let guests write back when they like: quicker, for directories that nobody else changes
    #[arg(long)]
    pub writeback: bool,

    /// With --cache never or metadata: let guests map files shared and writable (Linux 6.6 and
    /// later), for directories that nobody else changes
    #[arg(long)]
    pub allow_mmap: bool,

    /// A guest's O_DIRECT bypasses the host's cache, too
    #[arg(long)]
    pub allow_direct_io: bool,

    /// Refuse every change
    #[arg(long)]
    pub readonly: bool,

    /// Serve extended attributes (default)
    #[arg(long, overrides_with = "no_xattr")]
    pub xattr: bool,

    /// Serve no extended attributes
    #[arg(long, overrides_with = "xattr")]
    pub no_xattr: bool,

    /// Rules for the names of extended attributes, such as :map::user.virtiofs.:
    #[arg(long, value_name = "RULES")]
    pub xattrmap: Option<XattrMap>,

    /// Clear set-user-ID and set-group-ID bits here, in one step with the change (default)
    #[arg(long, overrides_with = "no_killpriv_v2")]
    pub killpriv_v2: bool,

    /// Let guests clear set-user-ID and set-group-ID bits: for directories on NFS
    #[arg(long, overrides_with = "killpriv_v2")]
    pub no_killpriv_v2: bool,

    /// Keep O_NOATIME, which only a file's owner may use
    #[arg(long)]
    pub preserve_noatime: bool,

    /// Never list directories with their entries' attributes
    #[arg(long)]
    pub no_readdirplus: bool,

    /// Serve POSIX ACLs (needs --xattr)
    #[arg(long, conflicts_with = "no_xattr")]
    pub posix_acl: bool,

    /// Give new files the security labels that guests want for them (needs --xattr)
    #[arg(long, conflicts_with = "no_xattr")]
    pub security_label: bool,

    /// Show other file systems mounted in the directory as mounts of their own
    #[arg(long)]
    pub announce_submounts: bool,

    /// Let guests' fcntl locks hold between guests, and on the host
    #[arg(long, overrides_with = "no_posix_lock")]
    pub posix_lock: bool,

    /// They hold in their guest (default)
    #[arg(long, overrides_with = "posix_lock")]
    pub no_posix_lock: bool,

    /// Let guests' flock locks hold between guests, and on the host
    #[arg(long, overrides_with = "no_flock")]
    pub flock: bool,

    /// They hold in their guest (default)
    #[arg(long, overrides_with = "flock")]
    pub no_flock: bool,

    /// When to keep what guests cache by file handle and not by open file
    #[arg(long, value_enum, value_name = "WHEN", default_value = "as-needed")]
    pub inode_file_handles: FileHandles,

    /// Most open files for what guests cache; more is kept by file handle, or by name [default: half
    /// of the limit of open files]
    #[arg(long, value_name = "N")]
    pub max_open: Option<usize>,

    /// Most files that guests may know at a time; what they look up or make beyond that is ENFILE. 0: no
    /// limit
    #[arg(long, value_name = "N", default_value_t = MAX_NODES)]
    pub max_nodes: usize,

    /// Remember here what guests have open, so that they go on when the daemon is killed and started
    /// again: a directory in memory (tmpfs), for one daemon
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// With --state-dir: socket of a keeper (virtiofsd keep) that holds files without a name
    #[arg(long, value_name = "PATH", requires = "state_dir")]
    pub keeper: Option<PathBuf>,

    /// How the other daemon finds a guest's files after a migration
    #[arg(long, value_enum, value_name = "MODE", default_value = "find-paths")]
    pub migration_mode: MigrationMode,

    /// What happens when it does not find one
    #[arg(long, value_enum, value_name = "WHAT", default_value = "abort")]
    pub migration_on_error: OnMigrationError,

    /// With find-paths: files must have the same file handle there as here
    #[arg(long)]
    pub migration_verify_handles: bool,

    /// Accepted and ignored: paths are always confirmed when they are sent
    #[arg(long)]
    pub migration_confirm_paths: bool,

    /// Limit of open files; 0 leaves it as it is [default: 1000000, or what the system allows]
    #[arg(long, value_name = "N")]
    pub rlimit_nofile: Option<u64>,

    /// Request queues, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub queues: u32,

    /// Accepted and ignored: what can block is the queues' io_uring's, not a pool's
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub thread_pool_size: usize,

    /// Ids of an ordinary user's namespace, :NAMESPACE_UID:HOST_UID:COUNT: (repeatable)
    #[arg(long, value_name = "MAP")]
    pub uid_map: Vec<IdMap>,

    /// The same for groups
    #[arg(long, value_name = "MAP")]
    pub gid_map: Vec<IdMap>,

    /// Show guests other users than the host's, map:GUEST_UID:HOST_UID:COUNT; also guest, host,
    /// squash-guest, squash-host (one direction) and forbid-guest:GUEST_UID:COUNT (repeatable)
    #[arg(long, value_name = "RULE")]
    pub translate_uid: Vec<TranslationRule>,

    /// The same for groups
    #[arg(long, value_name = "RULE")]
    pub translate_gid: Vec<TranslationRule>,

    /// Group whose members may connect to the socket
    #[arg(long, value_name = "GROUP", conflicts_with = "fd")]
    pub socket_group: Option<String>,

    /// Log to syslog
    #[arg(long)]
    pub syslog: bool,

    /// The C virtiofsd's options, such as source=DIR,cache=always
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub compat: Vec<String>,

    /// The same as --log-level debug
    #[arg(short = 'd')]
    pub debug: bool,

    /// Accepted and ignored: the daemon always stays in the foreground
    #[arg(short = 'f')]
    pub foreground: bool,
}
