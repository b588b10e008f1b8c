//! Filters of system calls that a thread of another process has (ptrace(2), PTRACE_SECCOMP_GET_FILTER).

use std::io;
use std::ptr;

use libc::{c_void, pid_t, sock_filter};
use rustix::process::{Pid, WaitOptions, waitpid};

/// As `linux/ptrace.h` has it; the libc crate has not.
const PTRACE_SECCOMP_GET_FILTER: u32 = 0x420c;
/// waitpid(2): also for threads that are no leaders.
const WALL: u32 = libc::__WALL.cast_unsigned();
/// Filters have at most this many instructions (BPF_MAXINSNS).
const MOST: usize = 4096;

/// The filters of a thread, the newest first. The thread is stopped for a moment.
///
/// # Errors
/// When the thread is gone, or whoever asks may not look (CAP_SYS_ADMIN).
pub(crate) fn filters(thread: u32) -> io::Result<Vec<Vec<sock_filter>>> {
    let thread = pid_t::try_from(thread).map_err(io::Error::other)?;
    seize(thread)?;
    let found = stop(thread).and_then(|()| (0..).map_while(|n| filter(thread, n)).collect());
    request(libc::PTRACE_DETACH, thread, 0, ptr::null_mut())?;
    found
}

fn seize(thread: pid_t) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, thread, 0, ptr::null_mut()).map(|_| ())
}

fn stop(thread: pid_t) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, thread, 0, ptr::null_mut())?;
    let options = WaitOptions::from_bits_retain(WALL);
    waitpid(Pid::from_raw(thread), options)?;
    Ok(())
}

/// The filter of that number; `None` behind the last.
fn filter(thread: pid_t, number: usize) -> Option<io::Result<Vec<sock_filter>>> {
    let empty = sock_filter {
        code: 0,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let mut instructions = vec![empty; MOST];
    let into = instructions.as_mut_ptr().cast();
    match request(PTRACE_SECCOMP_GET_FILTER, thread, number, into) {
        Ok(count) => {
            instructions.truncate(count);
            Some(Ok(instructions))
        }
        // EINVAL: it has none at all.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => None,
        Err(error) => Some(Err(error)),
    }
}

fn request(request: u32, thread: pid_t, address: usize, data: *mut c_void) -> io::Result<usize> {
    // SAFETY: of the requests made here only PTRACE_SECCOMP_GET_FILTER writes to `data`, which then is an
    // array of MOST instructions, as many as a filter can have.
    let answer = unsafe { libc::ptrace(request, thread, address, data) };
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}
