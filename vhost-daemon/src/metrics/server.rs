//! The metrics socket: whoever connects gets the text and the end of the stream.

use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::Registry;
use crate::listen::{self, ListenError, SocketFile};
use crate::sandbox::seccomp::{Role, ThreadFilters};

/// A socket for metrics that nobody is answered on yet.
pub struct MetricsSocket {
    listener: UnixListener,
    file: Option<SocketFile>,
}

impl MetricsSocket {
    /// Binds `path`.
    ///
    /// # Errors
    /// See [`listen::bind`].
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        Ok(Self {
            listener: listen::bind(path)?,
            file: Some(SocketFile::new(path.to_owned())),
        })
    }

    /// Takes over the removal of the socket's file.
    pub fn take_file(&mut self) -> Option<SocketFile> {
        self.file.take()
    }

    /// Serves `metrics` from a thread of its own, for as long as the process lives. The socket's
    /// file goes when the value is dropped.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn serve(
        self,
        metrics: Arc<Registry>,
        filters: Arc<ThreadFilters>,
    ) -> io::Result<MetricsServer> {
        let Self { listener, file } = self;
        thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || match filters.enter(Role::Metrics) {
                Ok(()) => serve(&listener, &metrics),
                Err(error) => tracing::error!(%error, "metrics are not served"),
            })?;
        Ok(MetricsServer { _file: file })
    }
}

/// Metrics are being served.
pub struct MetricsServer {
    _file: Option<SocketFile>,
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
