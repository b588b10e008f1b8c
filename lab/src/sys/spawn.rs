//! What a child process does between fork and exec.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
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

/// Gives the child a time namespace of its own, whose monotonic and boot-time clocks are `seconds` ahead of ours
/// (time_namespaces(7)).
pub(crate) fn set_clocks_ahead(command: &mut Command, seconds: u32) {
    let offsets = format!("monotonic {seconds} 0\nboottime {seconds} 0\n");
    let prepare = move || {
        // SAFETY: it takes an integer; the namespace is for the child's children, until the child enters it.
        succeeds(unsafe { libc::unshare(libc::CLONE_NEWTIME) })?;
        let file = open(c"/proc/self/timens_offsets", libc::O_WRONLY)?;
        rustix::io::write(&file, offsets.as_bytes())?;
        let namespace = open(c"/proc/self/ns/time_for_children", libc::O_RDONLY)?;
        // SAFETY: it takes integers. The child has one thread, which is in the middle of no wait.
        succeeds(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWTIME) })
    };
    // SAFETY: the closure makes plain system calls on integers, on names that are constants and on a text made
    // before the fork; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
}

fn open(path: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: `path` ends with a zero, and the call only reads it.
    let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
    succeeds(fd)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn succeeds(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
