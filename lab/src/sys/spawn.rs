//! What a child process does between fork and exec.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Lets the child keep `fds` open across exec under their present numbers.
///
/// Only the child's copies lose the close-on-exec flag, so that other children that the test
/// process starts at the same time do not inherit them.
pub(crate) fn inherit(command: &mut Command, fds: &[OwnedFd]) {
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let keep_open = move || {
        for &fd in &numbers {
            // SAFETY: F_SETFD takes an int and touches no memory; `fd` was open at the fork
            // because the caller keeps `fds` until the child is spawned.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure only calls fcntl and reads a vector made before the fork; both are
    // async-signal-safe, it neither allocates nor takes a lock.
    unsafe { command.pre_exec(keep_open) };
}

/// Lets the kernel kill the child when the thread that spawns it ends.
pub(crate) fn bind(command: &mut Command) {
    let parent = getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before the line above.
        if getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ECHILD))
        }
    };
    // SAFETY: the closure makes plain system calls on integers; it neither allocates nor takes a
    // lock.
    unsafe { command.pre_exec(prepare) };
}
