//! The command line: what was typed, and what it comes to.

use std::path::PathBuf;

use clap::Parser;
use thiserror::Error;
use vhost_daemon::options::{CommonConfig, CommonOptions, OptionsError};

use crate::device::TAG_LEN;
use crate::passthrough::{CachePolicy, Config};

/// Most request queues: a session has 64, and one is for high priority.
const MAX_REQUEST_QUEUES: u32 = 63;

/// What `--print-capabilities` says (QEMU, docs/interop/vhost-user.json).
pub const CAPABILITIES: &str = r#"{ "type": "fs" }"#;

/// Shares a directory of the host with virtual machines (vhost-user, virtio-fs).
#[derive(Debug, Parser)]
#[command(name = "virtiofsd", version)]
pub struct Options {
    /// Options that all daemons share.
    #[command(flatten)]
    pub common: CommonOptions,

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

    /// Refuse every change
    #[arg(long)]
    pub readonly: bool,

    /// Serve extended attributes (default)
    #[arg(long, overrides_with = "no_xattr")]
    pub xattr: bool,

    /// Serve no extended attributes
    #[arg(long, overrides_with = "xattr")]
    pub no_xattr: bool,

    /// Never list directories with their entries' attributes
    #[arg(long)]
    pub no_readdirplus: bool,

    /// Most open files for what guests cache; more is kept by file handle [default: half of the
    /// limit of open files]
    #[arg(long, value_name = "N")]
    pub max_open: Option<usize>,

    /// Request queues, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub queues: u32,
}

/// The options as validated.
#[derive(Debug)]
pub struct DaemonConfig {
    /// Those that all daemons share.
    pub common: CommonConfig,
    /// What to serve.
    pub passthrough: Config,
    /// Name of the file system in guests.
    pub tag: String,
    /// Request queues.
    pub queues: u32,
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
    /// An option that all daemons share.
    #[error(transparent)]
    Common(#[from] OptionsError),
}

impl Options {
    /// Checks the options.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn validate(self) -> Result<DaemonConfig, ConfigError> {
        let shared_directory = self.shared_dir.ok_or(ConfigError::NoSharedDirectory)?;
        if self.tag.is_empty() || self.tag.len() > TAG_LEN || self.tag.contains('\0') {
            return Err(ConfigError::BadTag { tag: self.tag });
        }
        if !(1..=MAX_REQUEST_QUEUES).contains(&self.queues) {
            return Err(ConfigError::BadQueues {
                queues: self.queues,
            });
        }
        Ok(DaemonConfig {
            passthrough: Config {
                shared_directory,
                cache: self.cache,
                writeback: self.writeback,
                read_only: self.readonly,
                xattr: !self.no_xattr,
                readdirplus: !self.no_readdirplus,
                max_open: self.max_open,
            },
            tag: self.tag,
            queues: self.queues,
            common: self.common.validate()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(extra: &[&str]) -> Result<DaemonConfig, ConfigError> {
        let line = ["virtiofsd", "--socket-path", "/s"].iter().chain(extra);
        Options::try_parse_from(line).unwrap().validate()
    }

    #[test]
    fn defaults_are_those_people_know() {
        let config = validate(&["--shared-dir", "/d"]).unwrap();
        assert_eq!(config.passthrough.cache, CachePolicy::Auto);
        assert!(config.passthrough.xattr && !config.passthrough.writeback);
        assert_eq!(config.queues, 1);
    }

    #[test]
    fn the_last_of_xattr_and_no_xattr_wins() {
        let off = validate(&["--shared-dir", "/d", "--xattr", "--no-xattr"]).unwrap();
        assert!(!off.passthrough.xattr);
        let on = validate(&["--shared-dir", "/d", "--no-xattr", "--xattr"]).unwrap();
        assert!(on.passthrough.xattr);
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        assert!(matches!(validate(&[]), Err(ConfigError::NoSharedDirectory)));
        let long = "t".repeat(TAG_LEN + 1);
        for extra in [["--tag", &long], ["--tag", ""]] {
            let all = [&["--shared-dir", "/d"], &extra[..]].concat();
            assert!(matches!(validate(&all), Err(ConfigError::BadTag { .. })));
        }
        for queues in ["0", "64"] {
            let refused = validate(&["--shared-dir", "/d", "--queues", queues]);
            assert!(matches!(refused, Err(ConfigError::BadQueues { .. })));
        }
    }
}
