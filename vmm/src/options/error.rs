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
    /// A file or text for the guest.
    #[error(transparent)]
    Boot(#[from] BootError),
}
