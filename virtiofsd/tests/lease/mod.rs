//! A lease on a file: who opens it elsewhere waits until the lease is given back.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    unsafe_code,
    reason = "the C library's fcntl is the only way to a lease"
)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// fcntl(2); the libc crate lacks it.
const F_SETSIG: i32 = 10;

/// Held until dropped; or for as long as /proc/sys/fs/lease-break-time lets it.
pub(crate) struct Lease(File);

impl Lease {
    pub(crate) fn take(path: &Path) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let lease = Self(file);
        // By default a signal that ends the process tells of others who want the file.
        lease.fcntl(F_SETSIG, libc::SIGURG);
        lease.fcntl(libc::F_SETLEASE, libc::F_WRLCK);
        lease
    }

    /// One that only who writes has to wait for. The file may be open for reading.
    pub(crate) fn take_from_writers(path: &Path) -> Self {
        let lease = Self(File::open(path).unwrap());
        lease.fcntl(F_SETSIG, libc::SIGURG);
        lease.fcntl(libc::F_SETLEASE, libc::F_RDLCK);
        lease
    }

    fn fcntl(&self, command: i32, argument: i32) {
        // SAFETY: the descriptor is open, and both commands take an integer.
        let result = unsafe { libc::fcntl(self.0.as_raw_fd(), command, argument) };
        assert!(result >= 0, "{}", std::io::Error::last_os_error());
    }
}
