//! The one call without a safe wrapper.

#![allow(unsafe_code, reason = "a pre_exec hook")]

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

/// Has the kernel end the program when the calling thread ends, and so when this process is
/// killed: a download that nobody waits for does not go on.
pub(crate) fn end_with_this_thread(command: &mut Command) {
    let prepare = || Ok(set_parent_process_death_signal(Some(Signal::TERM))?);
    // SAFETY: the hook makes one plain system call: nothing that allocates, locks or panics.
    unsafe { command.pre_exec(prepare) };
}
