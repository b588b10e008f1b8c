use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::boot::BootError;
use crate::memory::ByteSize;
use crate::snapshot::SnapshotError;

/// What is wrong with the command line or the configuration file.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// Nothing to boot.
    #[error("no kernel: give --kernel FILE, or `kernel` in the file of --config")]
    NoKernel,
    /// Too few or too many processors.
    #[error("--cpus {0}: a guest has 1 to 64")]
    Processors(u8),
    /// No end for the serial port.
    #[error("--serial {0}: neither tty, null, file=PATH nor socket=PATH")]
    Serial(String),
    /// A balloon in which no guest has room.
    #[error("--balloon {0} is all of the guest's memory")]
    Balloon(ByteSize),
    /// A balloon in reserved pages.
    #[error(
        "--balloon does not go with --hugepages: a page that the guest gave back may be another's when it is touched again"
    )]
    HugeBalloon,
    /// Two devices of one name.
    #[error("two devices have id={0}")]
    SameId(String),
    /// The file cannot be read.
    #[error("--config: cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is no description of a machine.
    #[error("--config {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: TextError,
    },
    /// A restored machine is what it was.
    #[error("--{0} does not go with --restore: the machine in the snapshot has its own")]
    Restored(&'static str),
    /// The snapshot.
    #[error("--restore")]
    Snapshot(#[from] SnapshotError),
    /// A file or text for the guest.
    #[error(transparent)]
    Boot(#[from] BootError),
}

/// What is wrong with a machine's description in TOML or JSON.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TextError {
    /// Longer than any description.
    #[error("it is longer than {0} bytes")]
    Long(usize),
    /// Not text.
    #[error("it is not UTF-8 text")]
    Encoding,
    /// A mistake.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The parser's words.
        reason: String,
    },
}

/// What is wrong with a device's description.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DeviceError {
    /// No daemon.
    #[error("socket=PATH is missing")]
    NoSocket,
    /// Not a name and a value.
    #[error("{0:?} is not NAME=VALUE")]
    NotPair(String),
    /// Not a property of this kind of device.
    #[error("there is no {name}= here, only {known}")]
    Unknown {
        /// As given.
        name: String,
        /// What there is.
        known: String,
    },
    /// A property with two values.
    #[error("{0}= is given twice")]
    Twice(&'static str),
    /// A value that makes no sense.
    #[error("{name}= wants {wanted}")]
    Value {
        /// The property.
        name: &'static str,
        /// What it takes.
        wanted: &'static str,
    },
}
