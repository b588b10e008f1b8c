//! Children as they end.

use std::io;

use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

/// Waits until a child of this process has ended, and leaves it there: its id is not used again before
/// [`collect`]. An error of kind `NotFound` says that there are none.
pub(crate) fn ended_child() -> io::Result<Pid> {
    loop {
        // SAFETY: all bytes zero are a siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOWAIT;
        // SAFETY: `info` lives through the call and is all that it writes.
        let waited = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
        match super::check(waited) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            Err(error) => return Err(error),
        }
        // SAFETY: waitid succeeded for a child, so these are the fields it filled in.
        if let Some(pid) = Pid::from_raw(unsafe { info.si_pid() }) {
            return Ok(pid);
        }
    }
}

/// Takes an ended child away and says how it ended.
pub(crate) fn collect(pid: Pid) -> io::Result<WaitStatus> {
    match waitpid(Some(pid), WaitOptions::NOHANG)? {
        Some((_, status)) => Ok(status),
        None => Err(io::ErrorKind::WouldBlock.into()),
    }
}
