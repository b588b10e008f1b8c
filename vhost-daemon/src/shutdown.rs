//! Telling a daemon to stop.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use vhost_user_backend::ShutdownHandle;

use crate::wakeup::Wakeup;

/// A request to stop, once made never taken back: it ends the connection at hand and the wait for
/// the next one.
pub struct Shutdown {
    event: Wakeup,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    requested: bool,
    connection: Option<ShutdownHandle>,
}

impl Shutdown {
    /// No stop requested yet.
    ///
    /// # Errors
    /// eventfd(2)'s.
    pub fn new() -> io::Result<Self> {
        let event = Wakeup::new()?;
        Ok(Self {
            event,
            state: Mutex::default(),
        })
    }

    /// Requests the stop.
    pub fn request(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requested = true;
        if let Some(connection) = state.connection.take() {
            connection.shutdown();
        }
        self.event.wake();
    }

    /// Whether the stop was requested.
    pub fn requested(&self) -> bool {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .requested
    }

    /// Waits for the request.
    ///
    /// # Errors
    /// poll(2)'s.
    pub fn wait(&self) -> io::Result<()> {
        let mut waiting = [PollFd::new(&self.event, PollFlags::IN)];
        loop {
            match rustix::event::poll(&mut waiting, None) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.map(drop).map_err(Into::into),
            }
        }
    }

    /// Waits that long, or until the request; whether it was made.
    pub(crate) fn requested_within(&self, time: Duration) -> io::Result<bool> {
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        let mut waiting = [PollFd::new(&self.event, PollFlags::IN)];
        match rustix::event::poll(&mut waiting, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(self.requested()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has [`request`](Self::request) end this connection too.
    pub(crate) fn attach(&self, connection: ShutdownHandle) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.requested {
            connection.shutdown();
        } else {
            state.connection = Some(connection);
        }
    }

    /// The connection is over.
    pub(crate) fn detach(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .connection = None;
    }

    /// Waits until `source` has input (`true`) or the stop is requested (`false`).
    pub(crate) fn wait_for_input(&self, source: &impl AsFd) -> io::Result<bool> {
        loop {
            let mut waiting = [
                PollFd::new(source, PollFlags::IN),
                PollFd::new(&self.event, PollFlags::IN),
            ];
            match rustix::event::poll(&mut waiting, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) if !waiting[1].revents().is_empty() => return Ok(false),
                Ok(_) => return Ok(true),
            }
        }
    }
}
