//! The loop that follows a machine from its start to the command's end.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use ringside_protocol::{Notice, Order};
use signal_hook::consts::{SIGPIPE, SIGWINCH};

use super::event::{Ended, Event, Failure};
use super::streams::Running;
use super::terminal::window_size;

/// How long the command may take to end after a signal before the machine is ended.
const GRACE: Duration = Duration::from_secs(10);

/// How long to look for the cause when a part ends: one part's end soon ends another.
const ENDS_TOGETHER: Duration = Duration::from_millis(150);

/// How long a guest may take until its command runs. A translated one on a busy host takes seconds.
pub(super) const BOOT_PATIENCE: Duration = Duration::from_secs(120);

/// No deadline: long enough to never matter, short enough to add to an instant.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A machine that runs.
pub(super) struct Session {
    pub(super) events: Receiver<Event>,
    pub(super) streams: Running,
    pub(super) terminal: bool,
}

/// How far the command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Booting,
    Runs,
    /// It ended with this code; its output is still on the way.
    Ended(u8),
}

/// A signal that was passed on to the command.
struct PassedOn {
    signal: i32,
    deadline: Instant,
}

impl Session {
    /// Serves until the command has ended and all its output is delivered.
    pub(super) fn serve(self) -> Result<u8, Failure> {
        let mut stage = Stage::Booting;
        let mut passed_on: Option<PassedOn> = None;
        let booted_by = Instant::now() + BOOT_PATIENCE;
        loop {
            match self.next_event(stage, passed_on.as_ref(), booted_by)? {
                Event::Signal(SIGWINCH) => self.resize(),
                Event::Signal(signal) => self.pass_on(signal, stage, &mut passed_on)?,
                Event::Notice(notice) => stage = self.note(notice)?,
                Event::BadNotice(error) => return Err(Failure::Control(error)),
                Event::PartEnded(end) => return Err(collect_ends(end, &self.events)),
                Event::OutputBroken => self.streams.order(Order::Signal { number: SIGPIPE }),
                Event::OutputComplete => {}
            }
            if let Stage::Ended(code) = stage
                && self.streams.are_complete()
            {
                self.streams.order(Order::PowerOff);
                return Ok(code);
            }
        }
    }

    /// Waits for the next event, or for the time when waiting ends the run.
    fn next_event(
        &self,
        stage: Stage,
        passed_on: Option<&PassedOn>,
        booted_by: Instant,
    ) -> Result<Event, Failure> {
        let (deadline, failure) = match (stage, passed_on) {
            (Stage::Runs, Some(passed_on)) => {
                (passed_on.deadline, Failure::Interrupted(passed_on.signal))
            }
            (Stage::Booting, _) => (booted_by, Failure::NotBooted),
            // Who reads the rest of the output may take any time.
            (Stage::Runs, None) | (Stage::Ended(_), _) => {
                (Instant::now() + FOREVER, Failure::NotBooted)
            }
        };
        let wait = deadline.saturating_duration_since(Instant::now());
        self.events.recv_timeout(wait).map_err(|_| failure)
    }

    fn note(&self, notice: Notice) -> Result<Stage, Failure> {
        match notice {
            Notice::Started { uptime_ms } => {
                tracing::debug!(uptime_ms, "the command runs");
                Ok(Stage::Runs)
            }
            Notice::Exited {
                code,
                stdout,
                stderr,
            } => {
                self.streams.expect(stdout, stderr);
                Ok(Stage::Ended(code))
            }
            Notice::Failed { message, code } => {
                self.streams.order(Order::PowerOff);
                Err(Failure::Guest { message, code })
            }
        }
    }

    /// The first signal goes to the command, which may want to tidy up. A second one, or one
    /// that no command can get, ends the machine.
    fn pass_on(
        &self,
        signal: i32,
        stage: Stage,
        passed_on: &mut Option<PassedOn>,
    ) -> Result<(), Failure> {
        if stage != Stage::Runs || passed_on.is_some() {
            return Err(Failure::Interrupted(signal));
        }
        self.streams.order(Order::Signal { number: signal });
        *passed_on = Some(PassedOn {
            signal,
            deadline: Instant::now() + GRACE,
        });
        Ok(())
    }

    fn resize(&self) {
        if self.terminal {
            let size = window_size();
            self.streams.order(Order::Resize {
                rows: size.rows,
                columns: size.columns,
            });
        }
    }
}

/// The first end and those that follow at once.
pub(super) fn collect_ends(first: Ended, events: &Receiver<Event>) -> Failure {
    let mut ends = vec![first];
    let deadline = Instant::now() + ENDS_TOGETHER;
    while let Ok(event) = events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        match event {
            Event::PartEnded(end) => ends.push(end),
            Event::Notice(Notice::Failed { message, code }) => {
                return Failure::Guest { message, code };
            }
            _ => {}
        }
    }
    Failure::Ended(ends)
}
