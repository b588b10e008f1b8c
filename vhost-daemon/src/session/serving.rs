//! A device served from a thread of its own, beside others.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::{Device, ServeError, Server};
use crate::sandbox::seccomp::Role;
use crate::shutdown::Shutdown;

/// A device that is being served until [`stop`](Self::stop).
pub struct Serving {
    shutdown: Arc<Shutdown>,
    thread: JoinHandle<()>,
}

impl Serving {
    /// Serves from a new thread. `ended` is called there when it is over: stopped, or by itself with
    /// the only front end.
    ///
    /// # Errors
    /// eventfd(2)'s and clone(2)'s.
    pub fn start<D: Device>(
        server: Server<D>,
        ended: impl FnOnce(Result<(), ServeError>) + Send + 'static,
    ) -> io::Result<Self> {
        let shutdown = Arc::new(Shutdown::new()?);
        let asked = shutdown.clone();
        let thread = thread::Builder::new()
            .name("device".to_owned())
            .spawn(move || {
                // No filter more: only reports name it.
                let _ = server.filters().enter(Role::Device);
                ended(server.run(&asked));
            })?;
        Ok(Self { shutdown, thread })
    }

    /// Asks for the end without waiting for it.
    pub fn request_stop(&self) {
        self.shutdown.request();
    }

    /// Ends the connection, drains the queues and removes the socket; returns when all that is done.
    pub fn stop(self) {
        self.request_stop();
        if self.thread.join().is_err() {
            tracing::error!("a device's thread panicked");
        }
    }
}
