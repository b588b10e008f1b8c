//! A daemon that is gone, and the next one.

use std::time::{Duration, Instant};

use super::{Daemon, Queues, Worker, after, set_calls, wake_both, watch_session};
use crate::vhost_user::FrontEndError;
use crate::vhost_user::session::{Begin, Session};

/// Between attempts to find a daemon again: doubled up to the second.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_millis(500);

impl Worker {
    pub(super) fn lose(&mut self, error: &FrontEndError) {
        // Whoever is lost while coming back waits longer each time.
        let retry = match &self.daemon {
            Daemon::Here(_) => {
                tracing::warn!(device = self.name(), %error, "the daemon is gone; waiting for it");
                FIRST_RETRY
            }
            Daemon::Lost { retry, .. } => (*retry * 2).min(LAST_RETRY),
        };
        if self.queues.are_served() {
            self.queues = Queues::Waiting(Begin::BehindUsed);
        }
        if matches!(self.daemon, Daemon::Here(_)) {
            self.mark_all();
        }
        {
            let mut state = self.desk.state();
            state.losses += u64::from(std::mem::take(&mut state.connected));
        }
        // Closed descriptors leave the epoll set by themselves.
        self.daemon = Daemon::Lost {
            retry,
            at: Instant::now() + retry,
        };
    }

    /// What a lost daemon wrote last it did not mark, perhaps.
    fn mark_all(&self) {
        if let Some(log) = self.memory.log() {
            log.mark_all();
        }
    }

    pub(super) fn try_again(&mut self) -> Result<(), FrontEndError> {
        if matches!(&self.daemon, Daemon::Lost { at, .. } if Instant::now() < *at) {
            return Ok(());
        }
        let mut session = Session::connect(&self.config.socket)?;
        session.trust();
        // Before it has any queue: one that is set up otherwise is not what the driver knows.
        let config = session.config(&self.config).inspect_err(|error| {
            if !std::mem::replace(&mut self.is_refused, true) {
                tracing::warn!(device = self.name(), %error, "the daemon that came back is another device");
            }
        })?;
        self.is_refused = false;
        watch_session(&self.epoll, &session)?;
        let paused = self.desk.state().paused;
        if let (Some(setup), Queues::Waiting(begin), false) = (&self.setup, &self.queues, paused) {
            let started = session.start(setup, &self.memory, begin, &mut self.notes);
            let started = started.and_then(|()| set_calls(&mut session, &self.calls));
            if started.is_ok() {
                wake_both(setup, &self.calls);
            }
            self.queues = after(&started);
            if let Err(error) = started {
                self.mark_all();
                return Err(error);
            }
        }
        self.daemon = Daemon::Here(session);
        self.desk.state().connected = true;
        tracing::info!(device = self.name(), "the daemon is back");
        self.change_config(config);
        Ok(())
    }
}
