//! The command line: what it comes to.

use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::Gid;
use rustix::thread::CapabilitySet;
use thiserror::Error;
use vhost_daemon::options::{CommonConfig, OptionsError};
use vhost_daemon::sandbox::capabilities::ModifyError;
use vhost_daemon::sandbox::{IdMaps, SandboxConfig};
use vhost_daemon::worker::PollPolicy;

use super::{CompatError, Options};
use crate::device::TAG_LEN;
use crate::passthrough::{
    CachePolicy, Config, FileHandles, IdTranslation, MigrationConfig, Overlap,
};
use crate::sys::group_named;

/// Most request queues: a session has 64, and one is for high priority.
const MAX_REQUEST_QUEUES: u32 = 63;

/// What serving files for all users takes (capabilities(7)).
const NEEDED: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);

/// The options as validated.
#[derive(Debug)]
pub struct DaemonConfig {
    /// Those that all daemons share.
    pub common: CommonConfig,
    /// How the daemon is closed in.
    pub sandbox: SandboxConfig,
    /// Ids of an ordinary user's namespace.
    pub id_maps: IdMaps,
    /// Whose members may connect, too.
    pub socket_group: Option<Gid>,
    /// Limit of open files: 0 as it is, `None` as high as makes sense.
    pub open_files: Option<u64>,
    /// What to serve.
    pub passthrough: Config,
    /// Name of the file system in guests.
    pub tag: String,
    /// Request queues.
    pub queues: u32,
    /// Where to remember what guests have open.
    pub state_dir: Option<PathBuf>,
    /// The keeper's socket.
    pub keeper: Option<PathBuf>,
}

/// Options that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Nothing to share.
    #[error("give --shared-dir DIR, the directory to share")]
    NoSharedDirectory,
    /// The tag does not fit the configuration space.
    #[error("--tag {tag:?} is empty or longer than {TAG_LEN} bytes")]
    BadTag {
        /// As given.
        tag: String,
    },
    /// Too many or too few queues.
    #[error("--queues {queues}: from 1 to {MAX_REQUEST_QUEUES} are possible")]
    BadQueues {
        /// As given.
        queues: u32,
    },
    /// Nothing to allow.
    #[error("--allow-mmap is for --cache never and metadata: otherwise files can be mapped anyway")]
    AllowMmap,
    /// ACLs name users and groups of the host, and the host knows them by their name.
    #[error(
        "--posix-acl cannot be used with --translate-uid or --translate-gid, as ACLs would name others than they mean, nor with an --xattrmap that renames or hides system.posix_acl_*"
    )]
    PosixAcl,
    /// `--translate-uid` or `--translate-gid` say two things of one id.
    #[error("{option}: {overlap}")]
    Overlap {
        /// Which.
        option: &'static str,
        /// What they say.
        overlap: Overlap,
    },
    /// No such group.
    #[error("--socket-group: there is no group {0:?}")]
    NoGroup(String),
    /// `--modcaps`.
    #[error(transparent)]
    Capabilities(#[from] ModifyError),
    /// `-o`.
    #[error(transparent)]
    Compat(#[from] CompatError),
    /// An option that all daemons share.
    #[error(transparent)]
    Common(#[from] OptionsError),
}

/// A guest mostly waits for an answer before it asks again: polling meanwhile costs twice the CPU.
const NO_POLLING: PollPolicy = PollPolicy::Fixed(Duration::ZERO);

impl Options {
    /// Checks the options.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn validate(self) -> Result<DaemonConfig, ConfigError> {
        let options = self.with_compat()?;
        if options.tag.is_empty() || options.tag.len() > TAG_LEN || options.tag.contains('\0') {
            return Err(ConfigError::BadTag { tag: options.tag });
        }
        if !(1..=MAX_REQUEST_QUEUES).contains(&options.queues) {
            return Err(ConfigError::BadQueues {
                queues: options.queues,
            });
        }
        let passthrough = options.passthrough()?;
        let mut needed = NEEDED;
        if options.inode_file_handles != FileHandles::Never {
            needed |= CapabilitySet::DAC_READ_SEARCH;
        }
        let group = options
            .socket_group
            .as_deref()
            .map(find_group)
            .transpose()?;
        let mut common = options.common;
        common.poll_us.get_or_insert(NO_POLLING);
        Ok(DaemonConfig {
            passthrough,
            sandbox: options.sandbox.validate(needed)?,
            id_maps: IdMaps {
                users: options.uid_map,
                groups: options.gid_map,
            },
            socket_group: group,
            open_files: options.rlimit_nofile,
            tag: options.tag,
            queues: options.queues,
            state_dir: options.state_dir,
            keeper: options.keeper,
            common: common.validate()?,
        })
    }

    fn passthrough(&self) -> Result<Config, ConfigError> {
        let shared_directory = self.shared_dir.clone();
        let bypasses = matches!(self.cache, CachePolicy::Never | CachePolicy::Metadata);
        if self.allow_mmap && !bypasses {
            return Err(ConfigError::AllowMmap);
        }
        let translated = !self.translate_uid.is_empty() || !self.translate_gid.is_empty();
        let renamed = self.xattrmap.as_ref().is_some_and(|map| !map.keeps_acls());
        if self.posix_acl && (translated || renamed) {
            return Err(ConfigError::PosixAcl);
        }
        let translation = |option, rules: &[_]| {
            IdTranslation::new(rules).map_err(|overlap| ConfigError::Overlap { option, overlap })
        };
        Ok(Config {
            cache: self.cache,
            writeback: self.writeback,
            allow_mmap: self.allow_mmap,
            direct_io: self.allow_direct_io,
            read_only: self.readonly,
            xattr: self.xattrmap.is_some() || !self.no_xattr,
            xattr_map: self.xattrmap.clone(),
            kill_privileges: !self.no_killpriv_v2,
            preserve_noatime: self.preserve_noatime,
            posix_acl: self.posix_acl,
            security_label: self.security_label,
            announce_submounts: self.announce_submounts,
            posix_lock: self.posix_lock,
            flock: self.flock,
            readdirplus: !self.no_readdirplus,
            file_handles: self.inode_file_handles,
            max_open: self.max_open,
            max_nodes: (self.max_nodes != 0).then_some(self.max_nodes),
            users: translation("--translate-uid", &self.translate_uid)?,
            groups: translation("--translate-gid", &self.translate_gid)?,
            migration: MigrationConfig {
                mode: self.migration_mode,
                on_error: self.migration_on_error,
                verify: self.migration_verify_handles,
            },
            ..Config::new(shared_directory.ok_or(ConfigError::NoSharedDirectory)?)
        })
    }
}

/// By name, or by number.
fn find_group(group: &str) -> Result<Gid, ConfigError> {
    let number = group.parse().ok().filter(|number| *number != u32::MAX);
    let found = group_named(group).or(number);
    found
        .map(Gid::from_raw)
        .ok_or_else(|| ConfigError::NoGroup(group.to_owned()))
}
