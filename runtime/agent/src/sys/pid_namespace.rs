//! The process that holds a pod's process name space.

use std::io;

use rustix::process::{WaitOptions, wait};

/// Makes a process name space and its first process, which reaps what is orphaned there and does nothing
/// else for as long as the guest runs. Returns its id to the caller, which must have one thread only.
pub(crate) fn start_first_process() -> io::Result<u32> {
    // SAFETY: unshare takes flags only; CLONE_NEWPID changes what future children see and nothing of ours.
    super::check(unsafe { libc::unshare(libc::CLONE_NEWPID) })?;
    let ended = child_signal()?;
    // SAFETY: this process has one thread, so its copy is whole; the copy only waits, below.
    match unsafe { libc::fork() } {
        0 => reap_for_ever(&ended),
        pid => {
            super::check(pid)?;
            Ok(pid.unsigned_abs())
        }
    }
}

/// Blocks SIGCHLD: a blocked signal waits for its reader even where it would be ignored.
fn child_signal() -> io::Result<libc::sigset_t> {
    // SAFETY: all bytes zero are a sigset_t; the calls below fill it in as the manual has it.
    let mut signals: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set lives through the call.
    super::check(unsafe { libc::sigemptyset(&raw mut signals) })?;
    // SAFETY: as above, and the number is a signal's.
    super::check(unsafe { libc::sigaddset(&raw mut signals, libc::SIGCHLD) })?;
    let old = std::ptr::null_mut();
    // SAFETY: the set lives through the call; the old one is not asked for.
    super::check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, old) })?;
    Ok(signals)
}

fn reap_for_ever(ended: &libc::sigset_t) -> ! {
    let _ = rustix::thread::set_name(c"pod");
    loop {
        while wait(WaitOptions::empty()).is_ok() {}
        let mut signal = 0;
        // SAFETY: both live through the call.
        unsafe { libc::sigwait(ended, &raw mut signal) };
    }
}
