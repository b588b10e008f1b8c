//! Removes what a pod's killed owner left behind.
//!
//! The kernel kills a pod's parts when their owner dies, and unmounts what was mounted in the
//! owner's namespace when the last of them is gone; sockets and logs stay. Should a part outlive
//! its owner after all, it is found by its process id *and* start time, so that no innocent process
//! is hit.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::directory::PodDirectory;
use crate::parts::PID_FILE;
use crate::proc::start_time;
use crate::share::Share;
use crate::{PodError, network};

/// How long killed parts may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// Ends what is left of a pod and removes its directory. A pod that is not there is no error.
///
/// # Errors
/// When something cannot be removed.
pub fn remove(root: &Path, name: &str) -> Result<(), PodError> {
    let directory = PodDirectory::at(root, name)?;
    let entries = match fs::read_dir(directory.path()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(PodError::file("read", directory.path()))?,
    };
    let left: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|it| it == PID_FILE))
        .filter_map(|entry| process(&entry.path()))
        .collect();
    for (pid, started) in &left {
        kill(*pid, *started);
    }
    let deadline = Instant::now() + PATIENCE;
    let alive = |(pid, started): &(u32, u64)| start_time(*pid) == Some(*started);
    while left.iter().any(alive) && Instant::now() < deadline {
        std::thread::sleep(PAUSE);
    }
    network::remove_abandoned(&directory)?;
    Share::abandoned(directory.shared()).destroy()?;
    directory.remove()
}

/// Process id and start time in a part's file.
fn process(path: &Path) -> Option<(u32, u64)> {
    let text = fs::read_to_string(path).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    Some((pid.parse().ok()?, started.parse().ok()?))
}

/// Kills the process of this id if it is the one that started then.
fn kill(pid: u32, started: u64) {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    // Opened first: once the start time is right, the descriptor is that process's for good.
    if let Ok(process) = pidfd_open(id, PidfdFlags::empty())
        && start_time(pid) == Some(started)
    {
        let _ = pidfd_send_signal(&process, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_the_process_that_was_meant_is_killed() {
        let root = tempfile::tempdir().unwrap();
        let directory = PodDirectory::create(root.path(), "pod").unwrap();
        let mut part = Command::new("sleep").arg("60").spawn().unwrap();
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        let started = start_time(part.id()).unwrap();
        let ours = format!("{} {started}\n", part.id());
        let reused = format!("{} 1\n", other.id());
        fs::write(directory.file("part.pid"), ours).unwrap();
        fs::write(directory.file("other.pid"), reused).unwrap();
        // Waited for, so that it does not stay a zombie with a start time.
        let reaper = std::thread::spawn(move || part.wait());
        remove(root.path(), "pod").unwrap();
        assert!(!reaper.join().unwrap().unwrap().success());
        assert!(!directory.path().exists());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
