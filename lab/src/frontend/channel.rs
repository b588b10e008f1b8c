//! What a daemon says unasked.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Error, Result};

/// The channel from the daemon to the front end (vhost-user, "Back-end message types").
#[derive(Debug)]
pub struct BackendChannel {
    pub(super) stream: UnixStream,
}

/// `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`
const CONFIG_CHANGED: u32 = 2;

impl BackendChannel {
    /// Whether the daemon says, within `timeout`, that its configuration has changed.
    ///
    /// # Errors
    /// When the channel is closed, or something else comes.
    pub fn wait_config_changed(&mut self, timeout: Duration) -> Result<bool> {
        let failed = Error::os("cannot read the back-end channel");
        self.stream
            .set_read_timeout(Some(timeout))
            .map_err(failed)?;
        let mut header = [0; 12];
        match self.stream.read_exact(&mut header) {
            Ok(()) => Ok(header[..4] == CONFIG_CHANGED.to_ne_bytes()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(Error::os("cannot read the back-end channel")(error)),
        }
    }
}
