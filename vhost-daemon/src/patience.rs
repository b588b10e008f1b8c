//! Waiting for what a process that was killed has not let go of yet: its socket, its locks, its tap.
//!
//! The kernel finishes a process's operations before it closes its descriptors, and takes its io_uring apart after
//! that: on a slow disk, or a busy machine, that takes seconds. The process that comes in its place waits for it. From
//! one that is well it takes nothing, and says so soon.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{major, minor};

/// One that is about to be killed may look well for a moment: a sandboxed process follows the one outside.
const WITH_THE_WELL: Duration = Duration::from_millis(500);
/// Nobody can tell who has it.
const WITH_STRANGERS: Duration = Duration::from_secs(10);
/// A slow disk's sync.
const WITH_THE_DYING: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(5);

/// How long to try again for what somebody else has.
#[derive(Debug)]
pub struct Patience {
    began: Instant,
    told: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            told: false,
        }
    }
}

impl Patience {
    /// Waits a little; whether to try again then. `holder` is the process that has it, if that is known, and `what`
    /// names it in the log.
    pub fn lasts(&mut self, what: &dyn std::fmt::Display, holder: Option<i32>) -> bool {
        let most = match holder {
            Some(process) if is_ending(process) => WITH_THE_DYING,
            Some(_) => WITH_THE_WELL,
            None => WITH_STRANGERS,
        };
        let waited = self.began.elapsed();
        if waited >= most {
            return false;
        }
        if waited >= WITH_THE_WELL && !self.told {
            self.told = true;
            tracing::info!(%what, holder, "waiting for another process to let it go");
        }
        thread::sleep(STEP);
        true
    }
}

/// The process that has locked `file` (flock(2)), as proc(5) has it in `/proc/locks`.
pub fn lock_holder(file: &File) -> Option<i32> {
    let status = file.metadata().ok()?;
    let (device, inode) = (status.dev(), status.ino());
    let id = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    holder_in(&std::fs::read_to_string("/proc/locks").ok()?, &id)
}

/// `1: FLOCK  ADVISORY  WRITE 1234 fe:00:131 0 EOF`
fn holder_in(locks: &str, id: &str) -> Option<i32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, holder, of, ..] if of == id => holder.parse().ok(),
            _ => None,
        }
    })
}

/// Whether a process was killed, or has gone.
fn is_ending(process: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{process}/stat")) {
        Ok(stat) => says_ending(&stat),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Proc(5): state, flags and pending signals are the third, ninth and thirty-first field.
fn says_ending(stat: &str) -> bool {
    /// `PF_EXITING` of the kernel's linux/sched.h.
    const EXITING: u64 = 4;
    const KILLED: u64 = 1 << (libc::SIGKILL - 1);
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number = |field: usize| {
        let text = fields.get(field - 3).copied().unwrap_or_default();
        text.parse().unwrap_or(0_u64)
    };
    matches!(fields.first(), Some(&("Z" | "X")))
        || number(9) & EXITING != 0
        || number(31) & KILLED != 0
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn the_dead_are_ending_and_the_living_are_not() {
        assert!(!is_ending(std::process::id().cast_signed()));
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let process = child.id().cast_signed();
        assert!(!is_ending(process));
        child.kill().unwrap();
        let deadline = Instant::now() + WITH_STRANGERS;
        while !is_ending(process) && Instant::now() < deadline {
            thread::sleep(STEP);
        }
        assert!(is_ending(process), "a zombie");
        let mut patience = Patience {
            began: Instant::now().checked_sub(2 * WITH_STRANGERS).unwrap(),
            told: false,
        };
        assert!(patience.lasts(&"it", Some(process)));
        assert!(!patience.lasts(&"it", None));
        child.wait().unwrap();
        assert!(is_ending(process), "nobody");
    }

    #[test]
    fn who_exits_or_has_been_killed_is_ending() {
        let stat = |state, flags, pending| {
            format!(
                "7 (a) b) {state} 1 7 7 0 -1 {flags} {} {pending} 0",
                "0 ".repeat(21).trim()
            )
        };
        assert!(!says_ending(&stat("S", 0x0040_0000, 0)));
        assert!(says_ending(&stat("D", 0x0040_0004, 0)));
        assert!(says_ending(&stat("R", 0, 1 << 8)));
        assert!(says_ending(&stat("Z", 0, 0)));
        assert!(!says_ending(""));
    }

    #[test]
    fn a_lock_has_a_holder() {
        let locks = "1: POSIX  ADVISORY  READ 9 08:01:7 0 EOF\n2: FLOCK  ADVISORY  WRITE 12 08:01:7 0 EOF\n";
        assert_eq!(holder_in(locks, "08:01:7"), Some(12));
        assert_eq!(holder_in(locks, "08:01:8"), None);
        let file = tempfile::tempfile().unwrap();
        assert_eq!(lock_holder(&file), None);
        flock(&file, FlockOperation::LockExclusive).unwrap();
        // Some file systems number their files otherwise there: nobody is known then.
        let own = std::process::id().cast_signed();
        assert!([Some(own), None].contains(&lock_holder(&file)));
    }

    #[test]
    fn from_the_well_nothing_is_waited_for_long() {
        let mut patience = Patience::default();
        let own = Some(std::process::id().cast_signed());
        while patience.lasts(&"it", own) {}
        let waited = patience.began.elapsed();
        assert!(waited >= WITH_THE_WELL && waited < WITH_STRANGERS);
    }
}
