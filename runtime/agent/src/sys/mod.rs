//! The few calls that have no safe wrapper.

#![allow(
    unsafe_code,
    reason = "bpf(2), kill(2) to every process, and what the modules say"
)]

pub(crate) mod bpf;
pub(crate) mod clock;
pub(crate) mod heap;
pub(crate) mod helper;
pub(crate) mod pid_namespace;
pub(crate) mod reap;
pub(crate) mod vsock;

use std::io;

use rustix::process::Pid;

/// Sends any signal number, real-time ones included.
pub(crate) fn signal(pid: Pid, number: i32) -> io::Result<()> {
    // SAFETY: kill takes integers only and checks them.
    check(unsafe { libc::kill(pid.as_raw_nonzero().get(), number) })
}

/// Kills every process but this one, which is PID 1.
pub(crate) fn kill_everything_else() {
    // SAFETY: kill takes integers only; -1 never includes the caller or PID 1.
    // No process left is as good an answer as success.
    let _ = check(unsafe { libc::kill(-1, libc::SIGKILL) });
}

pub(crate) fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
