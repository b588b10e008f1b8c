//! Reaching a daemon that may still be starting.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{Error, Result};

const CONNECT_RETRY: Duration = Duration::from_millis(5);

/// Connects to a socket, trying until somebody listens.
pub(super) fn connect_stream(path: &Path, timeout: Duration) -> Result<UnixStream> {
    let deadline = Instant::now() + timeout;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(source) if !may_come(&source) || Instant::now() >= deadline => {
                return Err(Error::Connect {
                    path: path.into(),
                    timeout,
                    source,
                });
            }
            Err(_) => thread::sleep(CONNECT_RETRY),
        }
    }
}

fn may_come(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, NotFound, WouldBlock};
    matches!(
        error.kind(),
        ConnectionRefused | Interrupted | NotFound | WouldBlock
    )
}
