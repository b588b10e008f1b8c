//! What sockets take beyond the system calls of every daemon.

use vhost_daemon::sandbox::seccomp::{Arguments, Call, Calls};

/// For the threads' filters.
pub const CALLS: Calls = Calls {
    queue: SOCKETS,
    session: &[],
    control: &[],
};

/// Programs, their bytes, and the ends of connections.
const SOCKETS: &[Call] = &[
    Call::any(libc::SYS_accept4, "programs"),
    Call::any(libc::SYS_recvfrom, "a program's first line"),
    Call::any(libc::SYS_readv, "bytes from programs"),
    Call::any(libc::SYS_sendmsg, "bytes to programs"),
    Call::any(libc::SYS_shutdown, "the end of a direction"),
    Call::only(
        libc::SYS_socket,
        Arguments::Is(0, libc::AF_UNIX.unsigned_abs()),
        "connections that the guest begins",
    ),
    Call::any(libc::SYS_connect, "connections that the guest begins"),
    Call::only(
        libc::SYS_ioctl,
        Arguments::Is(1, 0x5421),
        "FIONBIO: programs' sockets are not waited for",
    ),
];
