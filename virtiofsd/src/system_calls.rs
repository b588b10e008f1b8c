//! What a queue's thread does to the host's files: system calls beyond those of every daemon.

use vhost_daemon::sandbox::seccomp::{Arguments, Call, Calls};

/// For the threads' filters.
pub const CALLS: Calls = Calls {
    queue: FILE_CALLS,
    session: &[],
    control: &[],
};

const FILE_CALLS: &[Call] = &[
    Call::any(libc::SYS_openat2, "names, confined to their directory"),
    Call::any(libc::SYS_openat, "open files again; files without a name"),
    Call::any(libc::SYS_open_by_handle_at, "nodes without a descriptor"),
    Call::any(libc::SYS_name_to_handle_at, "nodes without a descriptor"),
    Call::any(libc::SYS_statx, "attributes"),
    Call::any(libc::SYS_fstat, "set-id bits; a file's last change"),
    Call::any(libc::SYS_newfstatat, "set-id bits; a file's last change"),
    Call::any(libc::SYS_fstatfs, "STATFS"),
    Call::any(libc::SYS_getdents64, "READDIR"),
    Call::any(libc::SYS_lseek, "READDIR; LSEEK"),
    Call::any(
        libc::SYS_pread64,
        "what an earlier process appended (--state-dir)",
    ),
    Call::any(libc::SYS_readlinkat, "READLINK; paths, for a migration"),
    Call::any(libc::SYS_read, "the state that a migration brings"),
    Call::any(libc::SYS_mkdirat, "MKDIR"),
    Call::any(libc::SYS_mknodat, "MKNOD"),
    Call::any(libc::SYS_symlinkat, "SYMLINK"),
    Call::any(libc::SYS_linkat, "LINK"),
    Call::any(libc::SYS_unlinkat, "UNLINK, RMDIR"),
    Call::any(libc::SYS_renameat2, "RENAME"),
    Call::any(libc::SYS_renameat, "RENAME without flags"),
    Call::any(libc::SYS_fchmodat, "SETATTR: mode"),
    Call::any(libc::SYS_fchownat, "SETATTR: owner"),
    Call::any(libc::SYS_utimensat, "SETATTR: times"),
    Call::any(libc::SYS_ftruncate, "SETATTR: size"),
    Call::any(libc::SYS_fallocate, "FALLOCATE, inline"),
    Call::any(libc::SYS_fsync, "FSYNC, inline"),
    Call::any(libc::SYS_fdatasync, "FSYNC, inline"),
    Call::any(libc::SYS_flock, "SETLK of whole files"),
    Call::any(libc::SYS_syncfs, "SYNCFS"),
    Call::any(libc::SYS_copy_file_range, "COPY_FILE_RANGE"),
    Call::any(libc::SYS_setxattr, "SETXATTR"),
    Call::any(libc::SYS_getxattr, "GETXATTR"),
    Call::any(libc::SYS_listxattr, "LISTXATTR"),
    Call::any(libc::SYS_removexattr, "REMOVEXATTR"),
    Call::any(libc::SYS_setfsuid, "new files are the asking user's"),
    Call::any(libc::SYS_setfsgid, "new files are the asking user's"),
    Call::any(libc::SYS_setgroups, "new files are the asking user's"),
    Call::any(libc::SYS_capget, "set-id bits go with CAP_FSETID"),
    Call::any(libc::SYS_capset, "set-id bits go with CAP_FSETID"),
    Call::any(libc::SYS_geteuid, "the daemon's own user"),
    Call::any(libc::SYS_getegid, "the daemon's own group"),
    Call::any(libc::SYS_umask, "new files under the asking process' umask"),
    Call::only(
        libc::SYS_unshare,
        Arguments::Is(0, libc::CLONE_FS.unsigned_abs()),
        "a umask and a current directory of its own, no namespace",
    ),
    Call::any(libc::SYS_fchdir, "/proc/self/fd as current directory"),
];
