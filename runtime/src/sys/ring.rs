//! Whether this kernel lets us use io_uring.

use std::io;

use rustix::io_uring::{io_uring_params, io_uring_setup};

/// Makes the smallest ring and drops it.
///
/// # Errors
/// What the kernel says when it refuses, by seccomp or `kernel.io_uring_disabled`.
pub(crate) fn try_io_uring() -> io::Result<()> {
    let mut parameters = io_uring_params::default();
    // SAFETY: zeroed parameters ask for a plain ring; the call only fills the struct and returns a
    // descriptor that owns everything it made.
    unsafe { io_uring_setup(1, &mut parameters) }?;
    Ok(())
}
