//! A machine while it runs.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use lab_protocol::Notice;

use super::streams::{Near, Relay};
use super::turn::Turn;
use super::{Error, Streams};
use crate::guest::CONSOLE_LINES;
use crate::process::{Daemon, Transcript};

/// How often the machine's processes are looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long a daemon may take to end when its machine is gone.
const GRACE: Duration = Duration::from_secs(3);
/// How long the end of one process may take to become another's.
const ENDS_TOGETHER: Duration = Duration::from_millis(200);
/// What Linux says when it gives up.
const PANIC: &str = "Kernel panic - not syncing: ";

/// Something that happened to the machine.
#[derive(Debug)]
pub(super) enum Event {
    /// The machine's first process said something.
    Notice(Notice),
    /// It said nonsense.
    Garbled(io::Error),
    /// Output arrived, up to where the machine said it ends.
    Delivered,
    /// Somebody wants the machine to end.
    Stop(i32),
}

/// The machine's processes. QEMU drops first, so that no daemon loses a machine that still runs.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) hypervisor: Daemon,
    pub(super) console: Transcript,
    pub(super) daemons: Vec<Daemon>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        if self.hypervisor.is_running() {
            let _ = self.hypervisor.kill();
        }
        for daemon in &mut self.daemons {
            // What has not ended by itself is killed when it drops.
            let _ = daemon.wait_exit(GRACE);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Booting,
    Runs,
    Ended(u8),
}

impl Stage {
    fn words(self) -> &'static str {
        match self {
            Self::Booting => "still starting",
            Self::Runs => "still running its command",
            Self::Ended(_) => "still delivering its command's output",
        }
    }
}

/// A machine that runs. Dropping it ends it; nothing of it stays on the host.
#[derive(Debug)]
pub struct Running {
    parts: Parts,
    relay: Relay,
    events: Receiver<Event>,
    sender: Sender<Event>,
    started: Instant,
    ready: Option<Duration>,
    limit: Duration,
    _turn: Turn,
}

/// Ends a machine from another thread.
#[derive(Clone, Debug)]
pub struct Stopper(Sender<Event>);

impl Stopper {
    /// Ends the machine: [`Running::wait`] returns [`Error::Stopped`] with this signal's number.
    pub fn stop(&self, signal: i32) {
        // A machine that is gone need not be stopped.
        let _ = self.0.send(Event::Stop(signal));
    }
}

impl Running {
    pub(super) fn watch(
        parts: Parts,
        near: Near,
        streams: Streams,
        started: Instant,
        limit: Duration,
        turn: Turn,
    ) -> Result<Self, Error> {
        let (sender, events) = channel();
        let relay = streams.relay(near, &sender);
        Ok(Self {
            parts,
            relay: relay.map_err(Error::io("relay the command's streams"))?,
            events,
            sender,
            started,
            ready: None,
            limit,
            _turn: turn,
        })
    }

    /// Ends the machine from another thread, say when a signal comes.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.sender.clone())
    }

    /// What the machine's kernel said so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.parts.console.text()
    }

    /// Time from the start of the machine's first process on the host to the command's, once it
    /// was told.
    #[must_use]
    pub fn ready(&self) -> Option<Duration> {
        self.ready
    }

    /// Waits for the command's end and all of its output; returns its exit code.
    ///
    /// # Errors
    /// When the command cannot be run, a part of the machine dies, the time limit passes or a
    /// [`Stopper`] says so.
    pub fn wait(&mut self) -> Result<u8, Error> {
        let mut stage = Stage::Booting;
        loop {
            if let Some(event) = self.next_event(stage)? {
                stage = self.note(event, stage)?;
            }
            if let Stage::Ended(code) = stage
                && self.relay.is_complete()
            {
                return Ok(code);
            }
        }
    }

    fn next_event(&mut self, stage: Stage) -> Result<Option<Event>, Error> {
        match self.events.recv_timeout(POLL) {
            Ok(event) => return Ok(Some(event)),
            // This value holds a sender, too.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        // Output that QEMU delivered before it died still counts.
        self.check_alive()?;
        if self.started.elapsed() > self.limit {
            return Err(Error::TimedOut {
                stage: stage.words(),
                limit: self.limit,
                evidence: self.console_tail(),
            });
        }
        Ok(None)
    }

    fn note(&mut self, event: Event, stage: Stage) -> Result<Stage, Error> {
        match event {
            Event::Notice(Notice::Started { .. }) => {
                self.ready = Some(self.started.elapsed());
                Ok(Stage::Runs)
            }
            Event::Notice(Notice::Exited {
                code,
                stdout,
                stderr,
            }) => {
                self.relay.expect(stdout, stderr);
                Ok(Stage::Ended(code))
            }
            Event::Notice(Notice::Failed { message, code }) => {
                let evidence = if code == 125 {
                    self.console_tail()
                } else {
                    String::new()
                };
                Err(Error::NotRun {
                    message,
                    code,
                    evidence,
                })
            }
            Event::Garbled(error) => Err(Error::Garbled(error)),
            Event::Delivered => Ok(stage),
            Event::Stop(signal) => Err(Error::Stopped(signal)),
        }
    }

    /// A daemon's end takes QEMU with it, or the other way round: who failed is the cause.
    fn check_alive(&mut self) -> Result<(), Error> {
        let hypervisor = &mut self.parts.hypervisor;
        let daemons = &mut self.parts.daemons;
        if hypervisor.is_running() && daemons.iter_mut().all(Daemon::is_running) {
            return Ok(());
        }
        // Its last words may still be on the way.
        let console = self.parts.console.finish();
        if let Some(reason) = panic_in(&console) {
            let evidence = self.console_tail();
            return Err(Error::Panicked { reason, evidence });
        }
        for (index, daemon) in daemons.iter_mut().enumerate() {
            if let Ok(exit) = daemon.wait_exit(ENDS_TOGETHER)
                && !exit.status.success()
            {
                let serving = match index {
                    0 => "virtiofsd, which serves the host's /,".to_owned(),
                    n => format!("virtiofsd, which serves writable directory number {n},"),
                };
                return Err(Error::DaemonDied {
                    serving,
                    status: exit.status,
                    said: said(&exit.stderr),
                    evidence: self.console_tail(),
                });
            }
        }
        let exit = self.parts.hypervisor.wait_exit(GRACE)?;
        let evidence = self.console_tail();
        Err(if exit.status.success() {
            Error::SwitchedOff { evidence }
        } else {
            Error::HypervisorDied {
                status: exit.status,
                said: said(&exit.stderr),
                evidence,
            }
        })
    }

    fn console_tail(&self) -> String {
        let console = self.console();
        let lines: Vec<&str> = console.lines().collect();
        match lines.as_slice() {
            [] => "\n(its console said nothing)".to_owned(),
            lines => {
                let tail = &lines[lines.len().saturating_sub(CONSOLE_LINES)..];
                format!("\n--- the end of its console ---\n{}", tail.join("\n"))
            }
        }
    }
}

fn said(stderr: &str) -> String {
    match stderr.trim() {
        "" => String::new(),
        text => format!("; it said:\n{text}"),
    }
}

fn panic_in(console: &str) -> Option<String> {
    let line = console.lines().find(|line| line.contains(PANIC))?;
    let (_, reason) = line.split_once(PANIC)?;
    Some(reason.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_the_kernels_words() {
        let console =
            "[    1.5] x\r\n[    2.0] Kernel panic - not syncing: sysrq triggered crash\r\n";
        assert_eq!(panic_in(console).as_deref(), Some("sysrq triggered crash"));
        assert_eq!(panic_in("all is well"), None);
    }
}
