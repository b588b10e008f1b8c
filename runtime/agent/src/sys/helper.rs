//! A helper process: this program again, with one end of a socket as descriptor 3.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where a helper finds its end of the socket.
const NUMBER: i32 = 3;

/// Has the program that `command` starts find `socket` as descriptor 3.
pub(crate) fn hand_over(command: &mut Command, socket: OwnedFd) {
    let pass = move || {
        let from = socket.as_raw_fd();
        if from == NUMBER {
            // dup2 onto itself would leave close-on-exec set.
            return rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty())
                .map_err(Into::into);
        }
        // SAFETY: dup2 takes integers only. Whatever descriptor 3 was in the parent is close-on-exec, except
        // in the standard library's spawn, whose pipe is never as low as 3 once the agent has its own open.
        super::check(unsafe { libc::dup2(from, NUMBER) })
    };
    // SAFETY: the hook makes plain system calls: nothing that allocates, locks or panics.
    unsafe { command.pre_exec(pass) };
}

/// The helper's end, not passed on to what the helper starts. `None` where this program was not started
/// as a helper.
pub(crate) fn socket() -> Option<UnixStream> {
    // SAFETY: fcntl takes integers only and checks them.
    super::check(unsafe { libc::fcntl(NUMBER, libc::F_SETFD, libc::FD_CLOEXEC) }).ok()?;
    // SAFETY: the descriptor is open, as fcntl just said, and a helper calls this once, before it opens
    // anything: nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(NUMBER) };
    Some(socket.into())
}

/// Undoes what the standard library does to signals when a program starts: what the helper starts inherits it.
pub(crate) fn let_broken_pipes_kill() {
    // SAFETY: the default action is no function of ours; nothing else changes signals in a helper.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Receives one descriptor that came along with a byte or more (unix(7), `SCM_RIGHTS`).
pub(crate) fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    let mut parts = [io::IoSliceMut::new(&mut name)];
    recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(descriptor) = descriptors.next()
        {
            return Ok(descriptor);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "no descriptor came",
    ))
}
