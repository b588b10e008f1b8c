//! A limit to how long a new daemon may take for its answers. The library waits for ever, also on a socket
//! with a time limit of its own, so a thread ends the connection.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

/// Dropped, it has no effect any more.
pub(super) struct TimeLimit {
    _met: Sender<()>,
}

impl TimeLimit {
    /// From now on, `stream` is shut down after `limit`.
    pub(super) fn new(stream: &UnixStream, limit: Duration) -> io::Result<Self> {
        let stream = stream.try_clone()?;
        let (met, receiver) = channel();
        Builder::new().name("time-limit".into()).spawn(move || {
            if receiver.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        })?;
        Ok(Self { _met: met })
    }
}
