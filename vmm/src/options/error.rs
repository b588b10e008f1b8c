use thiserror::Error;

use crate::boot::BootError;

/// What is wrong with the command line.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// Too few or too many processors.
    #[error("--cpus {0}: a guest has 1 to 64")]
    Processors(u8),
    /// No end for the serial port.
    #[error("--serial {0}: neither tty, null, file=PATH nor socket=PATH")]
    Serial(String),
    /// A device that is not described as it must be.
    #[error("{option} {typed}: {reason}")]
    Device {
        /// Which option.
        option: &'static str,
        /// What was typed.
        typed: String,
        /// What is wrong with it.
        reason: DeviceError,
    },
    /// A file or text for the guest.
    #[error(transparent)]
    Boot(#[from] BootError),
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
    #[error("there is no {0}= here")]
    Unknown(String),
    /// A value that makes no sense.
    #[error("{name}= wants {wanted}")]
    Value {
        /// The property.
        name: &'static str,
        /// What it takes.
        wanted: &'static str,
    },
}
