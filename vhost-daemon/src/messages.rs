//! Bytes with descriptors on a unix stream socket (unix(7), `SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// vhost-user sends at most 8 descriptors with a message (`VHOST_MEMORY_BASELINE_NREGIONS`); the
/// vhost crate accepts 32.
pub const MAX_FDS: usize = 32;

/// Fills `bytes`, and adds the descriptors that came with them to `fds`.
///
/// # Errors
/// recvmsg(2)'s; `UnexpectedEof` when the other side has ended, `InvalidData` for more than [`MAX_FDS`] descriptors.
pub fn receive(from: impl AsFd, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<()> {
    receive_and(from, bytes, fds, |_| Ok(()))
}

/// The same; `look` sees descriptors when they arrive, for the rest of the bytes may never come.
///
/// # Errors
/// As [`receive`], and those of `look`.
pub(crate) fn receive_and(
    from: impl AsFd,
    mut bytes: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    mut look: impl FnMut(&[OwnedFd]) -> io::Result<()>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(bytes)];
        let count = recvmsg(&from, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let known = fds.len();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        look(fds.get(known..).unwrap_or_default())?;
        if fds.len() > MAX_FDS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes = &mut bytes[count..];
    }
    Ok(())
}

/// Sends all of `bytes`, with `fds`.
///
/// # Errors
/// sendmsg(2)'s; `InvalidData` with more than [`MAX_FDS`] descriptors.
pub fn send(
    to: impl AsFd,
    mut bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let flags = flags | SendFlags::NOSIGNAL;
    while !bytes.is_empty() {
        let sent = sendmsg(&to, &[IoSlice::new(bytes)], &mut ancillary, flags)?;
        // The descriptors went with the first bytes.
        ancillary.clear();
        bytes = &bytes[sent..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_are_seen_before_the_rest_of_their_message() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        send(&theirs, &[1], &[file.as_fd()], SendFlags::empty()).unwrap();
        let (mut bytes, mut fds) = ([0; 2], Vec::new());
        let seen = receive_and(&ours, &mut bytes, &mut fds, |new| match new.len() {
            1 => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => Ok(()),
        });
        assert_eq!(seen.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn bytes_that_come_one_by_one_bring_no_more_descriptors_than_a_message() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        for _ in 0..2 {
            send(&theirs, &[1], &[file.as_fd(); MAX_FDS], SendFlags::empty()).unwrap();
        }
        let (mut bytes, mut fds) = ([0; 2], Vec::new());
        let error = receive(&ours, &mut bytes, &mut fds).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
