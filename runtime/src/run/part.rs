//! The processes of a run: started, watched, ended.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::directory::{RunDirectory, tail};
use super::event::{Ended, Event};
use crate::sys::spawn::spawn_bound;

/// How long a part may take to end by itself, or after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// What a part is to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Serves a device.
    Daemon,
    /// Runs the machine.
    Hypervisor,
}

/// One process of the run.
#[derive(Debug)]
struct Part {
    name: String,
    role: Role,
    log: PathBuf,
    process: OwnedFd,
    ended: Receiver<ExitStatus>,
}

/// All processes of the run. Dropping it ends them: the hypervisor first, so that no daemon loses
/// its machine's connection while the machine still wants something.
#[derive(Debug)]
pub(super) struct Parts {
    parts: Vec<Part>,
    events: Sender<Event>,
    logs: PathBuf,
}

impl Parts {
    pub(super) fn new(events: Sender<Event>, logs: PathBuf) -> Self {
        Self {
            parts: Vec::new(),
            events,
            logs,
        }
    }

    /// Starts a part; its output goes to `NAME.log`. Must be called by the main thread.
    pub(super) fn start(
        &mut self,
        name: &str,
        mut command: Command,
        inherited: &[BorrowedFd<'_>],
        role: Role,
    ) -> Result<()> {
        let log = self.logs.join(format!("{name}.log"));
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output
            .try_clone()
            .context("cannot duplicate a log's descriptor")?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let program = command.get_program().to_owned();
        let mut child = spawn_bound(command, inherited)
            .with_context(|| format!("cannot start {name} ({})", program.display()))?;
        let process = open_process(child.id()).with_context(|| format!("cannot watch {name}"))?;
        let (sender, ended) = channel();
        let (events, index) = (self.events.clone(), self.parts.len());
        thread::spawn(move || {
            if let Ok(status) = child.wait() {
                // The run may be over and gone; then nobody needs to know.
                let _ = sender.send(status);
                let _ = events.send(Event::PartEnded(Ended {
                    part: index,
                    status,
                }));
            }
        });
        self.parts.push(Part {
            name: name.to_owned(),
            role,
            log,
            process,
            ended,
        });
        Ok(())
    }

    /// Gives the hypervisor time to end by itself after the guest switched itself off.
    pub(super) fn wait_for_hypervisor(&self) {
        let hypervisors = self
            .parts
            .iter()
            .filter(|part| part.role == Role::Hypervisor);
        for part in hypervisors {
            // What has not ended in time is ended by drop.
            let _ = part.ended.recv_timeout(GRACE);
        }
    }

    /// Says which part's end was the cause, and what it said last.
    pub(super) fn obituary(&self, ended: Vec<Ended>, directory: &RunDirectory) -> Error {
        let is_hypervisor = |end: &&Ended| {
            self.parts
                .get(end.part)
                .is_some_and(|part| part.role == Role::Hypervisor)
        };
        // A daemon may end without complaint because its machine did, and the other way round.
        let cause = ended
            .iter()
            .find(|end| !end.status.success())
            .or_else(|| ended.iter().find(is_hypervisor))
            .or(ended.first());
        let Some((part, status)) =
            cause.and_then(|end| Some((self.parts.get(end.part)?, end.status)))
        else {
            return anyhow!("the run ended for no known reason");
        };
        let own_log = tail(&part.log, "its log");
        match part.role {
            Role::Daemon => {
                anyhow!(
                    "{} ended before the command did ({status}){own_log}",
                    part.name
                )
            }
            Role::Hypervisor => anyhow!(
                "the guest died: {} ended before the command did ({status}){own_log}{}",
                part.name,
                directory.console_tail()
            ),
        }
    }
}

fn open_process(id: u32) -> Result<OwnedFd> {
    let pid = i32::try_from(id)
        .ok()
        .and_then(Pid::from_raw)
        .context("impossible process id")?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

impl Drop for Parts {
    fn drop(&mut self) {
        let (hypervisors, daemons): (Vec<_>, Vec<_>) = self
            .parts
            .iter()
            .partition(|part| part.role == Role::Hypervisor);
        // Either the guest has switched itself off or it is to end at once.
        end(&hypervisors, Signal::KILL);
        end(&daemons, Signal::TERM);
    }
}

/// Sends `signal` to all, waits for all, and kills what is left.
fn end(parts: &[&Part], signal: Signal) {
    for part in parts {
        // Failing means that it has ended already.
        let _ = pidfd_send_signal(&part.process, signal);
    }
    let deadline = Instant::now() + GRACE;
    for part in parts {
        if !part.has_ended_by(deadline) {
            tracing::warn!(part = part.name, "did not end in time: killed");
            let _ = pidfd_send_signal(&part.process, Signal::KILL);
            part.has_ended_by(Instant::now() + GRACE);
        }
    }
}

impl Part {
    fn has_ended_by(&self, deadline: Instant) -> bool {
        let wait = deadline.saturating_duration_since(Instant::now());
        // A closed channel means that the status was taken before.
        !matches!(
            self.ended.recv_timeout(wait),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        )
    }
}
