//! Attributes of mounts.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Lets nobody open device nodes, run programs or gain a file's privileges in this tree of mounts,
/// or, with `read_only`, change it. Linux 5.12.
pub(crate) fn restrict_mounts(tree: impl AsFd, read_only: bool) -> io::Result<()> {
    let mut attributes = libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NOSUID;
    if read_only {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    let change = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the descriptor is open while borrowed, the path is a C string, and size and pointer
    // are those of a live structure, which the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
