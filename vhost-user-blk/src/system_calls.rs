//! What disks take beyond the system calls of every daemon. Most blocks go through the queues'
//! io_urings.

use vhost_daemon::sandbox::seccomp::{Call, Calls};

/// For the threads' filters.
pub const CALLS: Calls = Calls {
    queue: BLOCKS,
    session: &[],
    control: OPENING,
};

/// Operations on an image that are done at once.
const BLOCKS: &[Call] = &[
    Call::any(libc::SYS_fallocate, "discards of images in memory"),
    Call::any(libc::SYS_fdatasync, "a qcow2 image's tables, at its end"),
    Call::any(libc::SYS_fsync, "the same"),
    Call::any(libc::SYS_lseek, "where an image in memory has data"),
];

/// `ctl add` opens an image and makes a socket; `resize` looks at the image again.
const OPENING: &[Call] = &[
    Call::any(
        libc::SYS_openat,
        "images, backing files, --state-dir; how many processors there are",
    ),
    Call::any(libc::SYS_flock, "an image is one process'"),
    Call::any(
        libc::SYS_fallocate,
        "room for --state-dir; what an image can do",
    ),
    Call::any(libc::SYS_ftruncate, "files of --state-dir"),
    Call::any(libc::SYS_fchmod, "a socket is its owner's"),
    Call::any(libc::SYS_pread64, "an image's header"),
    Call::any(libc::SYS_readlink, "where a backing file is"),
    Call::any(libc::SYS_readlinkat, "where a backing file is"),
    Call::any(libc::SYS_getcwd, "where a backing file is"),
    Call::any(libc::SYS_statx, "kind and size of an image"),
    Call::any(libc::SYS_fstat, "kind and size of an image"),
    Call::any(libc::SYS_newfstatat, "kind and size of an image"),
    Call::any(libc::SYS_setsockopt, "a slow client's time limit"),
];
