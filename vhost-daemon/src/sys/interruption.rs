//! Getting a thread out of a system call that may wait for another process for ever.
//!
//! A signal whose handler does nothing: a call that waits then fails with `EINTR`.

use std::io;
use std::mem;
use std::ptr;

use libc::c_int;
use rustix::process::Pid;

/// Nothing happens by default, should the handler not be there. TCP's urgent data, which it is for, no daemon has.
const SIGNAL: c_int = libc::SIGURG;

/// Puts the handler in place. To be called before a filter of system calls forbids it.
///
/// # Errors
/// sigaction(2)'s.
pub(crate) fn expect_interruption() -> io::Result<()> {
    // SAFETY: a C struct of integers, for which zero is valid; an empty signal mask is zero. No flags: a call that was
    // interrupted is not begun again (SA_RESTART).
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let handler: extern "C" fn(c_int) = on_interruption;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_ONSTACK;
    // SAFETY: without SA_SIGINFO a handler has one argument; this one does nothing at all.
    let set = unsafe { libc::sigaction(SIGNAL, &raw const action, ptr::null_mut()) };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

extern "C" fn on_interruption(_signal: c_int) {}

/// Interrupts what `thread`, one of this process, waits for. It may come too early: who wants the thread back asks again.
pub(crate) fn interrupt_thread(thread: Pid) {
    let (process, thread) = (rustix::process::getpid(), thread.as_raw_nonzero().get());
    // SAFETY: takes no pointer. A thread that is gone, or another one that got its number, is none the worse.
    unsafe {
        libc::syscall(
            libc::SYS_tgkill,
            process.as_raw_nonzero().get(),
            thread,
            SIGNAL,
        );
    }
}
