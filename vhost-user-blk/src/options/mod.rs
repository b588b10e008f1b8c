//! Options: as typed, then as validated.

mod disk;

use std::path::PathBuf;

use clap::Parser;
use rustix::thread::CapabilitySet;
use thiserror::Error;
use vhost_daemon::options::{CommonOptions, OptionsError as CommonError, SharedConfig};
use vhost_daemon::sandbox::capabilities::ModifyError;
use vhost_daemon::sandbox::{EnclosureConfig, EnclosureOptions};

use crate::control::Command;
use crate::storage::qcow2::BackingFiles;
use crate::storage::{Format, FormatNotNamed};
pub use disk::{DiskConfig, DiskSpec, Medium, NotADisk};

/// What `--print-capabilities` prints (QEMU, vhost-user backend program conventions).
pub const CAPABILITIES: &str = r#"{"type": "block", "features": ["read-only", "blk-file"]}"#;

/// Most queues one disk may have.
const MAX_QUEUES: usize = 64;

/// The options that describe one disk, by clap's names: `--disk` says all of that itself.
const ONE_DISK: [&str; 13] = [
    "blk_file",
    "format",
    "backing",
    "null",
    "socket_path",
    "fd",
    "direct",
    "read_only",
    "name",
    "block_size",
    "serial",
    "queues",
    "discard",
];

/// Serves disk images and block devices to virtual machines over vhost-user
#[derive(Parser, Debug)]
#[command(version, about, args_conflicts_with_subcommands = true)]
pub struct Options {
    /// To a running daemon.
    #[command(subcommand)]
    pub action: Option<Action>,

    /// Options of all daemons.
    #[command(flatten)]
    pub common: CommonOptions,

    /// How the daemon is closed in.
    #[command(flatten)]
    pub sandbox: EnclosureOptions,

    /// A disk to serve, for several in one process: path=FILE,socket=PATH[,format=raw|qcow2]
    /// [,backing=none|near|any][,name=TEXT][,serial=TEXT][,queues=N][,block-size=512|4096]
    /// [,read-only=on][,direct=on][,discard=off]; a comma within a value is written twice
    #[arg(long, value_name = "KEY=VALUE,...", conflicts_with_all = ONE_DISK)]
    pub disk: Vec<DiskSpec>,

    /// Disk image or block device to serve
    #[arg(long, value_name = "PATH", conflicts_with = "null")]
    pub blk_file: Option<PathBuf>,

    /// Format of the image; raw by default, but an image that begins like qcow2 wants it said
    #[arg(long, value_name = "raw|qcow2", value_enum)]
    pub format: Option<Format>,

    /// Which backing files a qcow2 image may have: none, those in or below its own directory (near,
    /// the default), or any
    #[arg(long, value_name = "none|near|any", value_enum)]
    pub backing: Option<BackingFiles>,

    /// Serve a disk of this size that forgets what is written, for measuring
    #[arg(long, value_name = "BYTES")]
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

    /// What the control socket, the log and the metrics call the disk; the serial number or the
    /// image's file name by default
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,

    /// Directory (on tmpfs) that remembers requests in flight: after a crash they are done once
    /// more when the front end reconnects
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Unix socket for commands to the running daemon (vhost-user-blk ctl)
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// Logical block size the guest sees: 512 or 4096; with --direct what the image needs
    #[arg(long, value_name = "BYTES")]
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

/// The options as validated.
#[derive(Debug)]
pub struct Config {
    /// Options of all daemons.
    pub shared: SharedConfig,
    /// How the daemon is closed in.
    pub sandbox: EnclosureConfig,
    /// What is served from the start.
    pub disks: Vec<DiskConfig>,
    /// Where commands to the running daemon come from.
    pub control: Option<PathBuf>,
    /// Where requests in flight are remembered.
    pub state_dir: Option<PathBuf>,
}

/// Options that cannot be used.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// One of the common options.
    #[error(transparent)]
    Common(#[from] CommonError),
    /// `--modcaps`.
    #[error(transparent)]
    Capabilities(#[from] ModifyError),
    /// Nothing to do.
    #[error(
        "give --blk-file PATH and --socket-path PATH, or --disk path=PATH,socket=PATH, or --control PATH to add disks later"
    )]
    Nothing,
    /// No image.
    #[error("give the image or block device to serve: --blk-file PATH, or path=PATH of a disk")]
    NoImage,
    /// Two media.
    #[error("a disk has a path or is null, not both")]
    ImageAndNull,
    /// Nowhere to serve it.
    #[error("give the disk's socket: socket=PATH")]
    NoSocket,
    /// Two sockets.
    #[error("a disk has a socket or an fd, not both")]
    SocketAndFd,
    /// An inherited descriptor for two disks.
    #[error("fd={0} is given to two disks")]
    FdTwice(i32),
    /// An inherited descriptor named to a running daemon.
    #[error("an inherited descriptor (fd=) can be named at the start only")]
    FdWhileRunning,
    /// An image whose format has to be named.
    #[error(transparent)]
    Format(#[from] FormatNotNamed),
    /// A null disk without a sector.
    #[error("a null disk of {0} bytes is smaller than one sector of 512 bytes")]
    TooSmall(u64),
    /// Not a name.
    #[error(
        "the name '{0}' is not 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter, a digit or '_'"
    )]
    Name(String),
    /// A block size that guests do not know.
    #[error("a block size of {0} bytes: it is 512 or 4096")]
    BlockSize(u32),
    /// A serial number too long.
    #[error("the serial number '{0}' is longer than 20 bytes")]
    Serial(String),
    /// A number of queues out of range.
    #[error("{0} queues: their number is between 1 and {MAX_QUEUES}")]
    Queues(usize),
}

impl Options {
    /// The inherited descriptors that are named.
    pub fn inherited(&self) -> Vec<i32> {
        let of_disks = self.disk.iter().filter_map(|disk| disk.fd);
        of_disks.chain(self.common.fd).collect()
    }

    /// Checks the options.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn validate(self) -> Result<Config, OptionsError> {
        let (endpoint, shared) = self.common.validate_optional_endpoint()?;
        let mut fds: Vec<i32> = self.disk.iter().filter_map(|disk| disk.fd).collect();
        fds.sort_unstable();
        if let Some(twice) = fds.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(OptionsError::FdTwice(twice[0]));
        }
        let specs = self.disk.into_iter().map(DiskSpec::validate);
        let mut disks = specs.collect::<Result<Vec<_>, _>>()?;
        if self.blk_file.is_some() || self.null.is_some() || endpoint.is_some() {
            let disk = DiskSpec {
                path: self.blk_file,
                format: self.format,
                backing: self.backing,
                null: self.null,
                name: self.name,
                serial: self.serial,
                queues: self.queues,
                block_size: self.block_size,
                read_only: self.read_only,
                direct: self.direct,
                discard: Some(matches!(self.discard, Discard::On)),
                ..DiskSpec::default()
            };
            disks.push(disk.at(endpoint.ok_or(CommonError::NoEndpoint)?)?);
        }
        if disks.is_empty() && self.control.is_none() {
            return Err(OptionsError::Nothing);
        }
        Ok(Config {
            shared,
            // What is open stays open, whatever capabilities it took.
            sandbox: self.sandbox.validate(CapabilitySet::empty())?,
            disks,
            control: self.control,
            state_dir: self.state_dir,
        })
    }
}
