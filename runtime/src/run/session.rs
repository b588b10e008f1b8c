//! The command, from its start to its end.

use std::time::Duration;

use anyhow::{Context, Result};
use ringside_pod::agent::{Agent, ProcessName};
use ringside_pod::{Pod, PodError, PodEvent};
use signal_hook::consts::{SIGKILL, SIGPIPE, SIGWINCH};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::time::{Instant, sleep_until};

use super::command::{CONTAINER, Command};
use super::signals::{Signals, next_ending};
use super::streams::{Moved, Streams};
use super::terminal::{RawTerminal, window_size};

/// How long the command may take to end after a signal before the machine is ended.
const GRACE: Duration = Duration::from_secs(10);

const PROCESS: ProcessName<'static> = ProcessName {
    container: CONTAINER,
    exec: "",
};

/// Why a run ended before its command did.
#[derive(Debug)]
pub(super) enum Failure {
    /// By this signal to ringside.
    Interrupted(i32),
    /// The guest could not run the command.
    NotRun {
        /// What to say.
        message: String,
        /// The exit code that fits.
        code: u8,
    },
    /// A part of the pod, or the agent.
    Pod(PodError),
    /// The machine ended, for this reason.
    Ended(String),
    /// The host's terminal or streams.
    Terminal(anyhow::Error),
}

impl From<PodError> for Failure {
    fn from(error: PodError) -> Self {
        Self::Pod(error)
    }
}

/// A machine that runs, and what is heard meanwhile.
pub(super) struct Session<'a> {
    pub(super) pod: &'a Pod,
    pub(super) events: Receiver<PodEvent>,
    pub(super) signals: &'a mut Signals,
}

/// How far the command is.
#[derive(Debug, Default)]
struct Progress {
    /// Its exit code, once it ended.
    code: Option<u8>,
    /// Outputs that have not come to their end.
    open: usize,
    /// Whether it was said that the guest ran out of memory.
    out_of_memory: bool,
    /// A signal that was passed on to it, and when patience ends.
    passed_on: Option<(i32, Instant)>,
}

impl Session<'_> {
    /// Serves until the command has ended and all its output is delivered.
    pub(super) async fn serve(
        mut self,
        command: &Command,
        terminal: Option<RawTerminal>,
    ) -> Result<u8, Failure> {
        let (streams, names) = Streams::open(self.pod, terminal.is_some()).await?;
        let request = command.request(names, terminal.as_ref().map(RawTerminal::size));
        let created = tokio::select! {
            created = self.pod.agent().create(&request) => created,
            reason = machine_end(&mut self.events) => return Err(Failure::Ended(reason)),
            signal = next_ending(self.signals) => return Err(Failure::Interrupted(signal)),
        };
        created.map_err(|error| command.refused(error))?;
        let has_terminal = terminal.is_some();
        // It is as it was again when this ends, whatever is said then.
        let _raw = terminal
            .map(RawTerminal::enter)
            .transpose()
            .map_err(Failure::Terminal)?;
        let open = streams.outputs();
        let moved = streams.start().context("cannot duplicate a stream");
        let moved = moved.map_err(Failure::Terminal)?;
        self.pod.agent().start(CONTAINER).await?;
        tracing::debug!("the command runs");
        let progress = Progress {
            open,
            ..Progress::default()
        };
        self.follow(progress, moved, has_terminal).await
    }

    async fn follow(
        mut self,
        mut progress: Progress,
        mut moved: UnboundedReceiver<Moved>,
        terminal: bool,
    ) -> Result<u8, Failure> {
        let agent = self.pod.agent().clone();
        loop {
            if let (Some(code), 0) = (progress.code, progress.open) {
                return Ok(code);
            }
            let passed_on = progress.passed_on.filter(|_| progress.code.is_none());
            tokio::select! {
                Some(signal) = self.signals.recv() => match signal {
                    SIGWINCH if terminal => resize(&agent),
                    SIGWINCH => {}
                    signal => progress.pass_on(signal, &agent)?,
                },
                event = self.events.recv() => match event {
                    // The guest may say it as often as it likes.
                    Some(PodEvent::Exit { exec, code, .. }) if exec.is_empty() && progress.code.is_none() => {
                        progress.code = Some(u8::try_from(code).unwrap_or(u8::MAX));
                        // What it left running holds its streams.
                        order_signal(&agent, SIGKILL, true);
                    }
                    Some(PodEvent::Exit { .. }) => {}
                    Some(PodEvent::OutOfMemory { .. }) if !progress.out_of_memory => {
                        progress.out_of_memory = true;
                        tracing::warn!("the guest ran out of memory and killed a process");
                    }
                    Some(PodEvent::OutOfMemory { .. }) => {}
                    Some(PodEvent::Ended { reason }) => return Err(Failure::Ended(reason)),
                    None => return Err(Failure::Ended("for no known reason".to_owned())),
                },
                Some(moved) = moved.recv() => match moved {
                    Moved::Ended => progress.open = progress.open.saturating_sub(1),
                    Moved::Unread if progress.code.is_none() => order_signal(&agent, SIGPIPE, false),
                    Moved::Unread => {}
                },
                signal = too_late(passed_on) => return Err(Failure::Interrupted(signal)),
            }
        }
    }
}

impl Progress {
    /// The first signal goes to the command, which may want to tidy up. A second one, or one that
    /// no command can get, ends the machine.
    fn pass_on(&mut self, signal: i32, agent: &Agent) -> Result<(), Failure> {
        if self.code.is_some() || self.passed_on.is_some() {
            return Err(Failure::Interrupted(signal));
        }
        order_signal(agent, signal, false);
        self.passed_on = Some((signal, Instant::now() + GRACE));
        Ok(())
    }
}

async fn machine_end(events: &mut Receiver<PodEvent>) -> String {
    loop {
        match events.recv().await {
            Some(PodEvent::Ended { reason }) => return reason,
            Some(_) => {}
            None => return "for no known reason".to_owned(),
        }
    }
}

/// Returns the signal when the command's time to obey it is over.
async fn too_late(passed_on: Option<(i32, Instant)>) -> i32 {
    match passed_on {
        Some((signal, deadline)) => {
            sleep_until(deadline).await;
            signal
        }
        None => std::future::pending().await,
    }
}

/// Sends without waiting for the answer: a guest that does not answer must not hold up the rest.
fn order_signal(agent: &Agent, signal: i32, all: bool) {
    let agent = agent.clone();
    tokio::spawn(async move {
        let number = signal.unsigned_abs();
        if let Err(error) = agent.signal(PROCESS, number, all).await {
            tracing::debug!(signal, %error, "the command does not get it");
        }
    });
}

fn resize(agent: &Agent) {
    let (agent, size) = (agent.clone(), window_size());
    tokio::spawn(async move {
        if let Err(error) = agent.resize(PROCESS, size).await {
            tracing::debug!(%error, "the command's terminal keeps its size");
        }
    });
}
