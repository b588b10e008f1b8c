//! What networks take beyond the system calls of every daemon.

use vhost_daemon::sandbox::seccomp::{Arguments, Call, Calls};

/// For the threads' filters.
pub const CALLS: Calls = Calls {
    queue: FRAMES,
    session: TERMS,
    control: CLIENTS,
};

/// Frames, and a driver's commands about them.
const FRAMES: &[Call] = &[
    Call::any(libc::SYS_readv, "frames from the tap"),
    Call::any(libc::SYS_writev, "frames to the tap"),
    Call::any(
        libc::SYS_timerfd_create,
        "the end of a frame's wait for buffers",
    ),
    Call::any(
        libc::SYS_timerfd_settime,
        "the end of a frame's wait for buffers",
    ),
    SET_OFFLOADS,
    SET_HEADER,
    SET_QUEUE,
    Call::only(
        libc::SYS_socket,
        Arguments::Is(0, libc::AF_UNIX as u32),
        "passt, when it is back",
    ),
    Call::any(libc::SYS_connect, "passt, when it is back"),
    ioctl(libc::FIONBIO, "passt's socket is not waited for"),
];

/// Commands to the running daemon.
const CLIENTS: &[Call] = &[Call::any(
    libc::SYS_setsockopt,
    "a slow client's time limit",
)];

/// The session's thread agrees with the tap on what it agreed on with the driver.
const TERMS: &[Call] = &[SET_OFFLOADS, SET_HEADER, SET_QUEUE];

const SET_OFFLOADS: Call = ioctl(libc::TUNSETOFFLOAD, "what frames may leave to be done");
const SET_HEADER: Call = ioctl(libc::TUNSETVNETHDRSZ, "the length of frames' headers");
const SET_QUEUE: Call = ioctl(libc::TUNSETQUEUE, "which queues frames are spread over");

#[allow(
    clippy::cast_possible_truncation,
    reason = "an ioctl's number has 32 bits (asm-generic/ioctl.h)"
)]
const fn ioctl(number: libc::Ioctl, why: &'static str) -> Call {
    Call::only(libc::SYS_ioctl, Arguments::Is(1, number as u32), why)
}
