//! What a device may tell the front end unasked.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{SendFlags, send};

/// The way to the front end that is connected now. Cheap to clone; silent when no front end is
/// connected, or when it opened no channel (`VHOST_USER_SET_BACKEND_REQ_FD`).
#[derive(Clone, Debug, Default)]
pub struct FrontEnd(Arc<Mutex<Option<OwnedFd>>>);

/// `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`, version 1, no payload: le32 request, flags, size.
const CONFIG_CHANGED: [u32; 3] = [2, 1, 0];

impl FrontEnd {
    /// The device's configuration space has changed: the guest gets a configuration interrupt.
    pub fn config_changed(&self) {
        let channel = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(channel) = channel.as_ref() else {
            return;
        };
        let message = CONFIG_CHANGED.map(u32::to_ne_bytes).concat();
        // A front end that does not read its channel is not waited for.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if let Err(error) = send(channel, &message, flags) {
            tracing::debug!(%error, "the front end cannot be told of the changed configuration");
        }
    }

    /// The front end opened its channel.
    pub(super) fn open(&self, channel: &OwnedFd) -> io::Result<()> {
        let channel = channel.try_clone()?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel);
        Ok(())
    }

    /// The connection is over.
    pub(super) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
