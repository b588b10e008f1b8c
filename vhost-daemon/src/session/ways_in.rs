//! Sockets that a front end hands over.
//!
//! The kernel tells that a front end has gone once nobody has its end of the connection any more. That end itself may
//! come as a descriptor, or wait in another socket that does: the daemon would keep it open, and wait for ever. So
//! nothing more comes in by a socket that was handed over, nor stays in it. Nothing is read from one either: User-Mode
//! Linux's interrupts and the channel to the front end go out.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::socket_type;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketType, recvmsg,
    sendmsg, shutdown,
};

/// Closes the way in of each socket among `fds`, which came by `front_end`.
///
/// # Errors
/// When one of them is the other end of `front_end`, or a socket that is no connected stream.
pub(super) fn close(fds: &[OwnedFd], front_end: &OwnedFd) -> io::Result<()> {
    for fd in fds {
        match socket_type(fd) {
            Err(Errno::NOTSOCK) => {}
            Err(error) => return Err(error.into()),
            Ok(SocketType::STREAM) => {
                shutdown(fd, Shutdown::Read)?;
                send_nothing(front_end)?;
                empty(fd)?;
            }
            Ok(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(())
}

/// Fails once the other end takes nothing in any more.
fn send_nothing(to: &OwnedFd) -> io::Result<()> {
    let mut no_descriptors = SendAncillaryBuffer::new(&mut []);
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(to, &[IoSlice::new(&[])], &mut no_descriptors, flags)?;
    Ok(())
}

/// Takes out what came before the way was closed. There is no room for descriptors: the kernel closes them.
fn empty(socket: &OwnedFd) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let mut no_room = RecvAncillaryBuffer::new(&mut []);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(socket, &mut parts, &mut no_room, RecvFlags::DONTWAIT) {
            Ok(taken) if taken.bytes == 0 => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::messages::send;

    /// Whether the other end of `socket` is closed everywhere.
    fn is_over(socket: &OwnedFd) -> bool {
        let mut looked_at = [PollFd::new(socket, PollFlags::IN)];
        poll(&mut looked_at, Some(&Timespec::default())).unwrap();
        looked_at[0].revents().contains(PollFlags::HUP)
    }

    fn pair() -> (OwnedFd, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours.into(), theirs)
    }

    #[test]
    fn its_own_end_is_refused() {
        let (front_end, theirs) = pair();
        let handed = [OwnedFd::from(theirs.try_clone().unwrap())];
        assert!(close(&handed, &front_end).is_err());
        drop((theirs, handed));
        assert!(is_over(&front_end));
    }

    #[test]
    fn its_own_end_stays_in_no_other_socket() {
        let (front_end, theirs) = pair();
        let (handed, theirs_too) = pair();
        let flags = SendFlags::DONTWAIT;
        send(&theirs_too, &[1], &[theirs.as_fd()], flags).unwrap();
        send(&theirs_too, &[2; 9000], &[], flags).unwrap();
        let handed = [handed];
        close(&handed, &front_end).unwrap();
        // Neither later.
        assert!(send(&theirs_too, &[3], &[theirs.as_fd()], flags).is_err());
        drop(theirs);
        assert!(is_over(&front_end));
    }

    #[test]
    fn others_still_take_what_is_sent() {
        let (front_end, _theirs) = pair();
        let (handed, mut theirs_too) = pair();
        let handed = [handed, File::open("/dev/null").unwrap().into()];
        close(&handed, &front_end).unwrap();
        send(&handed[0], b"interrupt", &[], SendFlags::empty()).unwrap();
        let mut taken = [0; 9];
        io::Read::read_exact(&mut theirs_too, &mut taken).unwrap();
        assert_eq!(&taken, b"interrupt");
    }

    #[test]
    fn sockets_that_nobody_hands_over_are_refused() {
        let (front_end, _theirs) = pair();
        let folder = tempfile::tempdir().unwrap();
        let listening = UnixListener::bind(folder.path().join("socket")).unwrap();
        let packets = UnixDatagram::pair().unwrap().0;
        for handed in [OwnedFd::from(listening), OwnedFd::from(packets)] {
            assert!(close(&[handed], &front_end).is_err());
        }
    }
}
