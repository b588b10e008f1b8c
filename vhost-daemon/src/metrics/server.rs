//! The metrics socket: whoever connects gets the text and the end of the stream.

use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::Registry;
use crate::listen;

/// Serves a [`Registry`] on a unix socket from a thread of its own, for as long as the process lives.
/// The socket's file goes when the value is dropped.
pub struct MetricsServer {
    path: PathBuf,
}

impl MetricsServer {
    /// Starts serving on `path`.
    ///
    /// # Errors
    /// When the socket cannot be made (see [`listen::bind`]).
    pub fn start(path: &Path, metrics: Arc<Registry>) -> Result<Self, listen::ListenError> {
        let listener = listen::bind(path)?;
        thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || serve(&listener, &metrics))
            .map_err(|source| listen::ListenError::Bind {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(listener: &UnixListener, metrics: &Registry) {
    loop {
        let answered = listener.accept().and_then(|(mut stream, _)| {
            // A reader that does not read must not hold up the next one.
            stream.set_write_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(metrics.render().as_bytes())
        });
        match answered {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                tracing::debug!(%error, "a metrics reader went away");
                // Out of descriptors, for one: do not spin on it.
                thread::sleep(Duration::from_millis(10));
            }
            _ => {}
        }
    }
}
