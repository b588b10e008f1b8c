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
/// recvmsg(2)'s; `UnexpectedEof` when the other side has ended.
pub fn receive(from: impl AsFd, mut bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(bytes)];
        let count = recvmsg(&from, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
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
