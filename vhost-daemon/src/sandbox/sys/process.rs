//! Splitting a process, and ending one.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// How many threads the process has.
pub(crate) fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// New namespaces, for the process or (pid namespace) for its children.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: only descriptors must not be unshared behind owners' backs; these are namespaces.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// fork(2): the new process' id in the old one, `None` in the new one.
///
/// The caller has made sure that there is one thread: in the new process every lock is as free as
/// it was, and all of the library works.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: with one thread (the caller's promise) nothing is left half-done in the new process.
    let id = unsafe { libc::fork() };
    if id < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(id))
}

/// Closes what the process was started with beyond standard input, output and error, and `kept`. To
/// be called first of all: what is open then belongs to nobody here.
pub fn close_inherited(kept: &[RawFd]) {
    let kept = kept.iter().copied();
    close_but(kept.filter_map(|kept| u32::try_from(kept).ok()).collect());
}

/// Closes every descriptor but standard input, output, error and `kept`. The caller must use no
/// other one afterwards, nor drop its owner: it ends with [`exit_now`] or [`end_by`].
pub(crate) fn close_all_but(kept: &OwnedFd) {
    close_but(u32::try_from(kept.as_raw_fd()).into_iter().collect());
}

fn close_but(mut kept: Vec<u32>) {
    kept.sort_unstable();
    let mut from = libc::STDERR_FILENO.unsigned_abs() + 1;
    for kept in kept {
        if kept >= from {
            close_range(from, kept.saturating_sub(1));
            from = kept + 1;
        }
    }
    close_range(from, u32::MAX);
}

/// Closes the descriptors from `first` to `last`.
fn close_range(first: u32, last: u32) {
    if first <= last {
        // SAFETY: takes integers only. The descriptors have no owner here, or owners that are never
        // used or dropped again (the callers' promises).
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// Ends the process at once.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(code) }
}

/// Ends the process by a signal, so that whoever waits for it hears of the same end.
pub(crate) fn end_by(signal: i32) -> ! {
    // SAFETY: the default action is a valid one for any signal, and an invalid number fails.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: an all-zero signal set is a valid value to fill in.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours.
    unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: as above.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    // SAFETY: the set is initialised; the former mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
    // SAFETY: sends this process a signal.
    unsafe { libc::raise(signal) };
    exit_now(128 + signal)
}
