//! Processes of this host, named so that no other is ever meant.
//!
//! A process id is used again, soon on a busy host and surely after a reboot, when start times (counted
//! since the boot) come again, too. What is written down of a process may be older than that: state
//! directories need not be in memory.

use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::proc::{boot_id, start_time};

/// A process id, when that process started, in clock ticks since the machine did, and which of the
/// machine's boots that was.
///
/// As text, for files: `PID STARTED BOOT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process id. Of another boot it is a stranger's.
    pub pid: u32,
    started: u64,
    /// Not there in what an older version wrote: such a process is taken for one of another boot.
    #[serde(default)]
    boot: String,
}

impl Identity {
    /// This process.
    #[must_use]
    pub fn own() -> Self {
        Self::of(std::process::id())
    }

    /// The process that has this id now.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Self {
            pid,
            started: start_time(pid).unwrap_or_default(),
            boot: boot_id().unwrap_or_default(),
        }
    }

    /// The process that a file names, if it names one.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        fs::read_to_string(path).ok()?.parse().ok()
    }

    /// Whether it still runs: one that nobody has waited for does not.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.descriptor()
            .is_some_and(|process| !has_ended(&process, Duration::ZERO))
    }

    /// Waits for its end; whether it came in time.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        self.descriptor()
            .is_none_or(|process| has_ended(&process, patience))
    }

    /// Kills it.
    pub fn kill(&self) {
        if let Some(process) = self.descriptor() {
            // It may have been quicker.
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }

    fn descriptor(&self) -> Option<OwnedFd> {
        if boot_id().is_none_or(|boot| boot != self.boot) {
            return None;
        }
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        // Opened first: once the start time is right, the descriptor is that process's for good.
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        (start_time(self.pid) == Some(self.started)).then_some(process)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {}", self.pid, self.started, self.boot)
    }
}

/// Some text names no process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not PID STARTED BOOT")]
pub struct NoIdentity;

impl FromStr for Identity {
    type Err = NoIdentity;

    fn from_str(text: &str) -> Result<Self, NoIdentity> {
        let mut words = text.split_whitespace();
        let mut number = || words.next()?.parse::<u64>().ok();
        let (pid, started) = (number(), number());
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        Ok(Self {
            pid: pid.ok_or(NoIdentity)?,
            started: started.ok_or(NoIdentity)?,
            boot: words.next().unwrap_or_default().to_owned(),
        })
    }
}

/// A process descriptor is readable once its process has ended, waited for or not (pidfd_open(2)).
fn has_ended(process: &OwnedFd, patience: Duration) -> bool {
    let mut descriptors = [PollFd::new(process, PollFlags::IN)];
    let patience = Timespec::try_from(patience).ok();
    poll(&mut descriptors, patience.as_ref()).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_ends_and_no_other_is_meant() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let identity = Identity::of(child.id());
        assert!(identity.lives() && !identity.wait(Duration::from_millis(1)));
        let later = Identity {
            started: identity.started + 1,
            ..identity.clone()
        };
        let of_another_boot = Identity {
            boot: "3b1c2f0e-0000-4000-8000-000000000000".to_owned(),
            ..identity.clone()
        };
        let of_an_older_version = Identity {
            boot: String::new(),
            ..identity.clone()
        };
        for other in [later, of_another_boot, of_an_older_version] {
            assert!(!other.lives() && other.wait(Duration::ZERO), "{other}");
            other.kill();
        }
        assert!(child.try_wait().unwrap().is_none());
        identity.kill();
        assert!(identity.wait(Duration::from_secs(60)) && !identity.lives());
        child.wait().unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        let identity = Identity::own();
        assert_eq!(identity.to_string().parse(), Ok(identity));
        assert_eq!("7 8".parse::<Identity>().unwrap().boot, "");
        for text in ["", "7", "x 8", "7 x", "-1 8 b", "4294967296 8 b"] {
            assert_eq!(text.parse::<Identity>(), Err(NoIdentity), "{text}");
        }
    }
}
