//! Options: as typed, then as validated.

use std::path::PathBuf;

use clap::Parser;
use thiserror::Error;
use vhost_daemon::options::{CommonConfig, CommonOptions, OptionsError as CommonError};

use crate::control::Command;
use crate::request::{SECTOR, Serial};
use crate::storage::RawOptions;

/// What `--print-capabilities` prints (QEMU, vhost-user backend program conventions).
pub const CAPABILITIES: &str = r#"{"type": "block", "features": ["read-only", "blk-file"]}"#;

/// Most queues one disk may have.
const MAX_QUEUES: usize = 64;

/// Serves a disk image or a block device to virtual machines over vhost-user
#[derive(Parser, Debug)]
#[command(version, about, args_conflicts_with_subcommands = true)]
pub struct Options {
    /// To a running daemon.
    #[command(subcommand)]
    pub action: Option<Action>,

    /// Options of all daemons.
    #[command(flatten)]
    pub common: CommonOptions,

    /// Raw disk image or block device to serve
    #[arg(long, value_name = "PATH", conflicts_with = "null")]
    pub blk_file: Option<PathBuf>,

    /// Serve a disk of this size that forgets what is written, for measuring
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(512..))]
    pub null: Option<u64>,

    /// Go around the host's page cache (O_DIRECT)
    #[arg(long)]
    pub direct: bool,

    /// Whether a discard gives space back to the host
    #[arg(long, value_name = "on|off", default_value = "on", value_enum)]
    pub discard: Discard,

    /// Refuse writes
    #[arg(long)]
    pub read_only: bool,

    /// Directory (on tmpfs) that remembers requests in flight: after a crash they are done once
    /// more when the front end reconnects
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Unix socket for commands to the running daemon (vhost-user-blk ctl)
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// Logical block size the guest sees: 512 or 4096; with --direct what the image needs
    #[arg(long, value_name = "BYTES", value_parser = block_size)]
    pub block_size: Option<u32>,

    /// Serial number the guest sees (at most 20 bytes); the image's file name by default
    #[arg(long, value_name = "TEXT")]
    pub serial: Option<String>,

    /// Number of queues offered; one for each CPU of the host (at most 16) by default
    #[arg(long, value_name = "N")]
    pub queues: Option<usize>,
}

/// What to do instead of serving a disk.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Action {
    /// Send a command to a running daemon's control socket
    Ctl {
        /// The socket given to the daemon as --control
        socket: PathBuf,
        /// The command.
        #[command(subcommand)]
        command: Command,
    },
}

/// What becomes of a guest's discards.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum Discard {
    /// Their space goes back to the host.
    On,
    /// Discard is not offered.
    Off,
}

fn block_size(text: &str) -> Result<u32, String> {
    match text {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err("the block size is 512 or 4096".to_owned()),
    }
}

/// The options as validated.
#[derive(Debug)]
pub struct Config {
    /// Options of all daemons.
    pub common: CommonConfig,
    /// What is served.
    pub medium: Medium,
    /// Where commands to the running daemon come from.
    pub control: Option<PathBuf>,
    /// Where requests in flight are remembered.
    pub state_dir: Option<PathBuf>,
    /// Logical block size the guest sees, if it was asked for.
    pub block_size: Option<u32>,
    /// Serial number the guest sees.
    pub serial: Serial,
    /// Number of queues.
    pub queues: usize,
}

/// What a disk is made of.
#[derive(Debug)]
pub enum Medium {
    /// A raw image or a block device.
    Raw(PathBuf, RawOptions),
    /// Nothing, of this many bytes.
    Null(u64),
}

/// Options that cannot be used.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// One of the common options.
    #[error(transparent)]
    Common(#[from] CommonError),
    /// No image.
    #[error("give --blk-file PATH: the image or block device to serve")]
    NoImage,
    /// `--serial` too long.
    #[error("--serial '{0}' is longer than 20 bytes")]
    Serial(String),
    /// `--queues` out of range.
    #[error("--queues {0} is not between 1 and {MAX_QUEUES}")]
    Queues(usize),
}

impl Options {
    /// Checks the options.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(self) -> Result<Config, OptionsError> {
        let raw = RawOptions {
            read_only: self.read_only,
            direct: self.direct,
            discard: matches!(self.discard, Discard::On),
        };
        let medium = match (self.blk_file, self.null) {
            (Some(image), _) => Medium::Raw(image, raw),
            (None, Some(bytes)) => Medium::Null(bytes - bytes % SECTOR),
            (None, None) => return Err(OptionsError::NoImage),
        };
        let serial = match self.serial {
            Some(text) => Serial::new(&text).ok_or(OptionsError::Serial(text))?,
            None => Serial::truncated(&medium.name()),
        };
        let queues = self.queues.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(16))
        });
        if !(1..=MAX_QUEUES).contains(&queues) {
            return Err(OptionsError::Queues(queues));
        }
        let common = self.common.validate()?;
        Ok(Config {
            common,
            medium,
            state_dir: self.state_dir,
            control: self.control,
            block_size: self.block_size,
            serial,
            queues,
        })
    }
}

impl Medium {
    /// The image's file name.
    fn name(&self) -> String {
        match self {
            Self::Raw(path, _) => path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into(),
            Self::Null(_) => "null".to_owned(),
        }
    }
}
