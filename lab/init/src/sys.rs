//! What has no safe wrapper.

#![allow(unsafe_code, reason = "a pre_exec hook and kill(2) with any number")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Pid;

/// Starts the command in a session of its own.
pub(crate) fn in_new_session(command: &mut Command) {
    let prepare = || {
        rustix::process::setsid()?;
        Ok(())
    };
    // SAFETY: the hook makes one plain system call: nothing that allocates, locks or panics.
    unsafe { command.pre_exec(prepare) };
}

/// Sends any signal number, real-time ones included.
pub(crate) fn signal(pid: Pid, number: i32) -> io::Result<()> {
    // SAFETY: kill takes integers only and checks them.
    match unsafe { libc::kill(pid.as_raw_nonzero().get(), number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
