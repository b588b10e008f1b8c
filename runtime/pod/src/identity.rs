//! Processes of this host, named so that no other is ever meant.

use std::time::Duration;

use ringside_pod::proc::start_time;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process id and when that process started, in clock ticks since the machine did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) pid: u32,
    started: u64,
}

impl Identity {
    /// This process.
    pub(super) fn own() -> Self {
        Self::of(std::process::id())
    }

    /// The process of this id, as long as it is that one.
    pub(super) fn of(pid: u32) -> Self {
        Self {
            pid,
            started: start_time(pid).unwrap_or_default(),
        }
    }

    /// Whether it still runs: one that nobody has waited for does not.
    pub(super) fn lives(self) -> bool {
        self.descriptor()
            .is_some_and(|process| !has_ended(&process, Duration::ZERO))
    }

    /// Waits for its end; whether it came in time.
    pub(super) fn wait(self, patience: Duration) -> bool {
        self.descriptor()
            .is_none_or(|process| has_ended(&process, patience))
    }

    /// Kills it.
    pub(super) fn kill(self) {
        if let Some(process) = self.descriptor() {
            // It may have been quicker.
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }

    fn descriptor(self) -> Option<std::os::fd::OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        // Opened first: once the start time is right, the descriptor is that process's for good.
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        (start_time(self.pid) == Some(self.started)).then_some(process)
    }
}

/// A process descriptor is readable once its process has ended, waited for or not (pidfd_open(2)).
fn has_ended(process: &std::os::fd::OwnedFd, patience: Duration) -> bool {
    let mut descriptors = [PollFd::new(process, PollFlags::IN)];
    let patience = Timespec::try_from(patience).ok();
    poll(&mut descriptors, patience.as_ref()).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_ends() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let identity = Identity::of(child.id());
        assert!(identity.lives() && !identity.wait(Duration::from_millis(1)));
        let other = Identity {
            started: identity.started + 1,
            ..identity
        };
        assert!(!other.lives());
        other.kill();
        assert!(child.try_wait().unwrap().is_none());
        identity.kill();
        assert!(identity.wait(Duration::from_secs(60)) && !identity.lives());
        child.wait().unwrap();
    }
}
