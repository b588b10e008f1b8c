//! The process that stays outside.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use rustix::process::{Resource, Rlimit, set_parent_process_death_signal, setrlimit};
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::SandboxError;
use super::capabilities::confine;
use super::sys::{self, SignalSet};
use crate::listen::SocketFile;

/// What the process that waits can do: tell the inner one to stop, which may have another user's
/// name, and remove sockets' files wherever they are.
const NEEDED: CapabilitySet = CapabilitySet::KILL.union(CapabilitySet::DAC_OVERRIDE);

/// The way to the process outside, which waits for this one.
pub(super) struct Outside {
    /// Hangs up when that process ends.
    lifeline: OwnedFd,
}

impl Outside {
    /// Splits the process in two. The new one returns, in new namespaces as `unshared` says; the
    /// old one waits for it, and never returns.
    pub(super) fn split(
        unshared: UnshareFlags,
        files: Vec<SocketFile>,
    ) -> Result<Self, SandboxError> {
        let failed = |errno: rustix::io::Errno| SandboxError::Split(errno.into());
        let threads = sys::threads().map_err(SandboxError::Split)?;
        if threads != 1 {
            return Err(SandboxError::Threads(threads));
        }
        if !unshared.is_empty() {
            sys::unshare(unshared).map_err(|source| SandboxError::Step {
                mode: "namespace",
                step: "make a pid namespace",
                source,
            })?;
        }
        let (lifeline, held) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        // Blocked, no signal is lost between the fork and the first wait.
        let signals = SignalSet::of_a_daemon();
        let before = signals.block().map_err(SandboxError::Split)?;
        match sys::fork().map_err(SandboxError::Split)? {
            Some(inner) => wait_outside(inner, &signals, &held, &files),
            None => {
                drop(held);
                files.into_iter().for_each(SocketFile::leave);
                before.restore().map_err(SandboxError::Split)?;
                Ok(Self { lifeline })
            }
        }
    }

    /// From now on this process ends when the one outside does, however that ends. To be called
    /// after the last change of user or capabilities, which would undo it.
    pub(super) fn tie(self) -> Result<(), SandboxError> {
        let failed = |errno: rustix::io::Errno| SandboxError::Split(errno.into());
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed)?;
        let mut gone = [PollFd::new(&self.lifeline, PollFlags::empty())];
        let now = rustix::event::Timespec::default();
        if poll(&mut gone, Some(&now)).map_err(failed)? != 0 {
            return Err(SandboxError::Split(std::io::ErrorKind::BrokenPipe.into()));
        }
        Ok(())
    }
}

fn wait_outside(inner: Pid, signals: &SignalSet, held: &OwnedFd, files: &[SocketFile]) -> ! {
    sys::close_all_but(held);
    // It does no harm not to be able to.
    let _ = confine(NEEDED);
    let status = wait(inner, signals);
    for file in files {
        file.remove();
    }
    if let Some(code) = status.exit_status() {
        sys::exit_now(code);
    }
    let signal = status.terminating_signal().unwrap_or(libc::SIGKILL);
    tracing::error!(signal, "the process in the sandbox was ended by a signal");
    // One core file is enough, and it is not this process'.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    sys::end_by(signal)
}

/// Passes signals on until the inner process ends.
fn wait(inner: Pid, signals: &SignalSet) -> WaitStatus {
    loop {
        let signal = signals.wait();
        if signal == Some(Signal::CHILD) {
            match waitpid(Some(inner), WaitOptions::NOHANG) {
                Ok(Some((_, status))) if status.exited() || status.signaled() => return status,
                _ => {}
            }
        } else if let Some(signal) = signal {
            let _ = kill_process(inner, signal);
        }
    }
}
