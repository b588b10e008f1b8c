//! A console on a unix socket.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

/// Who is connected.
#[derive(Debug, Default)]
pub(super) struct Client(Mutex<Option<UnixStream>>);

impl Client {
    pub(super) fn connected(&self, stream: &UnixStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stream.try_clone().ok();
    }

    pub(super) fn gone(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Without a client the bytes are lost. A client that fails is let go.
    pub(super) fn send(&self, bytes: &[u8]) {
        // Cloned, so that a client that does not read holds nobody up but this thread.
        let client = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Ok(mut stream)) = client.as_ref().map(UnixStream::try_clone) else {
            return;
        };
        drop(client);
        if stream.write_all(bytes).is_err() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
