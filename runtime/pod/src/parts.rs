//! The processes a pod is made of: started, watched, stopped.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::PodError;
use crate::directory::PodDirectory;
use crate::identity::Identity;
use crate::log::{self, CONSOLE_LINES};
use crate::machine::CONSOLE;
use crate::sys::spawn::spawn_bound;

/// How long a part may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// Lines of a part's log that go into an error.
const LOG_LINES: usize = 15;

/// Ending of the files that name a part's process.
pub(crate) const PID_FILE: &str = "pid";

/// What a part is to the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves a device that is lost with it: its end is the machine's.
    Daemon,
    /// Serves a device that the machine connects again: it is started again.
    Restarted,
    /// Serves a device that the machine is to have: its end is the device's alone, until it is
    /// [accepted](Parts::accept).
    Probation,
    /// Runs the machine.
    Hypervisor,
}

/// A part's end.
#[derive(Debug, Clone)]
pub struct PartEnd {
    /// Its name.
    pub part: String,
    /// What it was.
    pub role: Role,
    /// Its process.
    pub pid: u32,
    /// How it ended.
    pub status: ExitStatus,
}

#[derive(Debug)]
struct Part {
    name: String,
    /// Held while its end is told, which says what it is then.
    role: Arc<Mutex<Role>>,
    pid: u32,
    process: OwnedFd,
    ended: watch::Receiver<Option<ExitStatus>>,
    /// Program and arguments.
    line: Vec<OsString>,
}

impl Part {
    fn role(&self) -> Role {
        *locked(&self.role)
    }
}

/// All processes of a pod.
#[derive(Debug)]
pub struct Parts {
    directory: PodDirectory,
    parts: Mutex<Vec<Part>>,
    ends: mpsc::UnboundedSender<PartEnd>,
    /// Once all are ended on purpose, none is started again.
    stopping: AtomicBool,
}

impl Parts {
    /// No parts yet. Each one's end is sent to `ends`.
    #[must_use]
    pub fn new(directory: PodDirectory, ends: mpsc::UnboundedSender<PartEnd>) -> Self {
        Self {
            directory,
            parts: Mutex::new(Vec::new()),
            ends,
            stopping: AtomicBool::new(false),
        }
    }

    /// Starts a part with `inherited` open under their numbers here; its output goes to
    /// `NAME.log`, of too much only the end, and `NAME.pid` says which process it is.
    ///
    /// # Errors
    /// When it cannot be started or watched.
    pub fn start(
        &self,
        name: &str,
        mut command: Command,
        inherited: &[BorrowedFd<'_>],
        role: Role,
    ) -> Result<(), PodError> {
        let failed = |source| PodError::Start {
            part: name.to_owned(),
            source,
        };
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let errors = writer.try_clone().map_err(failed)?;
        let reader = pipe::Receiver::from_owned_fd(reader.into()).map_err(failed)?;
        let path = self.directory.log(name);
        log::record(&path, reader).map_err(PodError::file("write", &path))?;
        let line = command.as_std();
        let line = std::iter::once(line.get_program()).chain(line.get_args());
        let line = line.map(OsString::from).collect();
        command.stdin(Stdio::null()).stdout(writer).stderr(errors);
        // Who cannot be watched, below, is not to run.
        command.kill_on_drop(true);
        let mut child = spawn_bound(command, inherited).map_err(failed)?;
        let pid = child.id().unwrap_or_default();
        let process = open_process(pid).map_err(failed)?;
        self.write_pid(name, pid)?;
        let (sender, ended) = watch::channel(None);
        let (ends, part) = (self.ends.clone(), name.to_owned());
        let role = Arc::new(Mutex::new(role));
        let its_role = Arc::clone(&role);
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                let role = locked(&its_role);
                // The pod may be over and gone; then nobody needs to know.
                let _ = sender.send(Some(status));
                let _ = ends.send(PartEnd {
                    part,
                    role: *role,
                    pid,
                    status,
                });
            }
        });
        self.parts().push(Part {
            name: name.to_owned(),
            role,
            pid,
            process,
            ended,
            line,
        });
        Ok(())
    }

    /// Starts a [`Role::Restarted`] part again that has ended, with the same options.
    ///
    /// # Errors
    /// When it is not of that kind, or all are being ended, or it cannot be started.
    pub(crate) fn restart(&self, end: &PartEnd) -> Result<(), PodError> {
        let mut parts = self.parts();
        let index = parts.iter().position(|part| part.name == end.part);
        let index = index.filter(|_| end.role == Role::Restarted && !self.is_stopping());
        let Some(index) = index else {
            drop(parts);
            return Err(self.obituary(end));
        };
        let line = parts.remove(index).line;
        drop(parts);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        self.start(&end.part, command, &[], Role::Restarted)
    }

    /// Waits for a part's end; for ever where there is no such part.
    pub(crate) async fn end_of(&self, name: &str) -> PartEnd {
        let found = self
            .parts()
            .iter()
            .find(|part| part.name == name)
            .map(|part| (part.pid, part.ended.clone()));
        if let Some((pid, mut ended)) = found
            && let Ok(status) = ended.wait_for(Option::is_some).await.map(|status| *status)
            && let Some(status) = status
        {
            return PartEnd {
                part: name.to_owned(),
                role: Role::Probation,
                pid,
                status,
            };
        }
        std::future::pending().await
    }

    /// Ends a part's [`Role::Probation`]. If it has ended by itself meanwhile, that is told now as any other's.
    pub(crate) fn accept(&self, name: &str, role: Role) {
        let parts = self.parts();
        let Some(part) = parts.iter().find(|part| part.name == name) else {
            return;
        };
        let mut its_role = locked(&part.role);
        *its_role = role;
        if let Some(status) = *part.ended.borrow() {
            let (part, pid) = (name.to_owned(), part.pid);
            // As where it ends.
            let _ = self.ends.send(PartEnd {
                part,
                role,
                pid,
                status,
            });
        }
    }

    /// Ends a daemon whose device is gone.
    pub(crate) async fn dismiss(&self, name: &str) {
        let (dismissed, kept) = self.parts().drain(..).partition(|part| part.name == name);
        *self.parts() = kept;
        end(&dismissed, Signal::TERM).await;
    }

    /// Whether this end is of a part that was [dismissed](Self::dismiss).
    pub(crate) fn was_dismissed(&self, end: &PartEnd) -> bool {
        !self.is_stopping() && !self.parts().iter().any(|part| part.pid == end.pid)
    }

    /// Whether all are being ended on purpose.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The hypervisor's process id; 0 before it was started.
    #[must_use]
    pub fn hypervisor(&self) -> u32 {
        let parts = self.parts();
        let hypervisor = parts.iter().find(|part| part.role() == Role::Hypervisor);
        hypervisor.map_or(0, |part| part.pid)
    }

    /// Why the pod ended, when this part did.
    #[must_use]
    pub fn obituary(&self, end: &PartEnd) -> PodError {
        let (part, status) = (end.part.clone(), end.status);
        let log = log::last_lines(&self.directory.log(&end.part), LOG_LINES);
        match end.role {
            Role::Daemon | Role::Restarted | Role::Probation => {
                PodError::PartEnded { part, status, log }
            }
            Role::Hypervisor => PodError::GuestDied {
                part,
                status,
                log,
                console: log::last_lines(&self.directory.log(CONSOLE), CONSOLE_LINES),
            },
        }
    }

    /// Waits for the hypervisor to end by itself.
    pub async fn wait_for_hypervisor(&self, patience: Duration) -> bool {
        let ended = self
            .parts()
            .iter()
            .find(|part| part.role() == Role::Hypervisor)
            .map(|part| part.ended.clone());
        match ended {
            Some(ended) => has_ended(ended, patience).await,
            None => true,
        }
    }

    /// Ends all: the hypervisor first, so that no daemon loses its machine's connection while the
    /// machine still wants something. By process, never by name.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let (hypervisors, daemons): (Vec<_>, Vec<_>) = self
            .parts()
            .drain(..)
            .partition(|part| part.role() == Role::Hypervisor);
        end(&hypervisors, Signal::KILL).await;
        end(&daemons, Signal::TERM).await;
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Vec<Part>> {
        locked(&self.parts)
    }

    fn write_pid(&self, name: &str, pid: u32) -> Result<(), PodError> {
        let path = self.directory.file(&format!("{name}.{PID_FILE}"));
        let process = Identity::of(pid);
        fs::write(&path, format!("{process}\n")).map_err(PodError::file("write", &path))
    }
}

/// Nothing that a pod was made of outlives it, also where nobody stopped it.
impl Drop for Parts {
    fn drop(&mut self) {
        for part in self.parts().drain(..) {
            let _ = pidfd_send_signal(&part.process, Signal::KILL);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn has_ended(mut ended: watch::Receiver<Option<ExitStatus>>, patience: Duration) -> bool {
    // A closed channel means that nobody watches any more, which is after the end.
    timeout(patience, ended.wait_for(Option::is_some))
        .await
        .is_ok()
}

/// Sends `signal` to all, waits for all, and kills what is left.
async fn end(parts: &[Part], signal: Signal) {
    for part in parts {
        // Failing means that it has ended already.
        let _ = pidfd_send_signal(&part.process, signal);
    }
    let deadline = tokio::time::Instant::now() + GRACE;
    for part in parts {
        let patience = deadline.saturating_duration_since(tokio::time::Instant::now());
        if !has_ended(part.ended.clone(), patience).await {
            tracing::warn!(part = part.name, "did not end in time: killed");
            let _ = pidfd_send_signal(&part.process, Signal::KILL);
            has_ended(part.ended.clone(), GRACE).await;
        }
    }
}

fn open_process(pid: u32) -> std::io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| std::io::Error::from_raw_os_error(libc::ESRCH))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

#[cfg(test)]
mod tests;
