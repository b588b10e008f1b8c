//! Child processes that cannot outlive the thread that started them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::process::{Child, Command};

/// Starts `command` with `inherited` open under their numbers here.
///
/// The kernel kills the child when the calling thread ends. The child gets a process group of its
/// own, so that signals meant for its parent's group do not reach it.
pub(crate) fn spawn_bound(mut command: Command, inherited: &[BorrowedFd<'_>]) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    let inherited: Vec<RawFd> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
    command.process_group(0);
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before the line above.
        if getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ECHILD));
        }
        inherited.iter().try_for_each(|fd| keep_across_exec(*fd))
    };
    // SAFETY: the hook makes plain system calls on values that exist already; it allocates nothing
    // and takes no lock.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}

fn keep_across_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: `spawn_bound` borrows the descriptor until the child has executed.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(fcntl_setfd(fd, FdFlags::empty())?)
}
