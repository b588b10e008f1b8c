//! A process's processor time, in nanoseconds, its ended threads included.

use std::io;

/// Processor time (user and system) that the process has used.
pub(crate) fn process_nanoseconds(pid: u32) -> io::Result<u64> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the pointer names a live variable of that type.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    read(clock)
}

fn read(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer names a live variable of that type.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    Ok(seconds.unwrap_or(0) * 1_000_000_000 + nanoseconds.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_time() {
        let me = std::process::id();
        let before = process_nanoseconds(me).unwrap();
        let mut sum = 0_u64;
        for value in 0..5_000_000_u64 {
            sum = std::hint::black_box(sum ^ value);
        }
        assert!(process_nanoseconds(me).unwrap() > before + 100_000, "{sum}");
    }

    #[test]
    fn a_process_that_does_not_exist_has_no_clock() {
        // One above the highest id that Linux gives (PID_MAX_LIMIT).
        assert!(process_nanoseconds((1 << 22) + 1).is_err());
    }
}
