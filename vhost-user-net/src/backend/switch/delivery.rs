//! Frames on their way into mailboxes.

use std::sync::{Arc, MutexGuard};

use smallvec::SmallVec;
use vhost_daemon::sys::Buffers;

use super::Shared;
use super::mailbox::{Bundle, Mailbox};
use crate::backend::{Offloads, PortError};
use crate::header::{HeaderLen, MIN_FRAME};

/// Frames of more bytes are not copied before it is known where they go: a second copy of one would cost
/// more than the first of its front by itself saves.
const STAGED: usize = 2048;

/// The part of a frame that is decided on: virtio header and Ethernet header.
pub(super) type Front = [u8; HeaderLen::Modern.bytes() + MIN_FRAME];

/// Mailboxes that are being filled: the one in use is locked.
#[derive(Default)]
pub(super) struct Delivery<'a> {
    open: Option<OpenMailbox<'a>>,
    to_wake: SmallVec<[&'a Arc<Mailbox>; 4]>,
}

/// One of them.
struct OpenMailbox<'a> {
    port: usize,
    bundle: MutexGuard<'a, Bundle>,
    /// What its guest took unfinished when it was locked; other terms discard what waits in it.
    taken: Offloads,
}

impl<'a> Delivery<'a> {
    /// The mailbox of a port for what comes from a sender's lane `from`, and what its guest takes unfinished.
    pub(super) fn open(
        &mut self,
        shared: &'a Shared,
        port: usize,
        from: usize,
    ) -> Result<(&mut Bundle, Offloads), PortError> {
        if self.open.as_ref().is_none_or(|open| open.port != port) {
            // One lock at a time: two senders cannot wait for each other.
            self.open = None;
            let inlet = shared.ports.get(port).ok_or(PortError::Down)?;
            // Nobody listens there: the frame is lost as on a wire that is not plugged in.
            let mailbox = inlet.lane(from).ok_or(PortError::Down)?;
            if !self.to_wake.iter().any(|known| Arc::ptr_eq(known, mailbox)) {
                self.to_wake.push(mailbox);
            }
            let bundle = mailbox.lock();
            self.open = Some(OpenMailbox {
                port,
                bundle,
                taken: inlet.taken(),
            });
        }
        let open = self.open.as_mut().ok_or(PortError::Down)?;
        Ok((&mut *open.bundle, open.taken))
    }

    /// Copies a frame behind those in the open mailbox without making it one of them; `front` gets its
    /// beginning. `false`, without a copy, if no mailbox is open or it is full, or the frame is long.
    pub(super) fn stage(&mut self, frame: &Buffers, header_len: usize, front: &mut Front) -> bool {
        let len = HeaderLen::Modern.bytes() + frame.len().saturating_sub(header_len);
        let open = self.open.as_mut().filter(|_| len <= STAGED);
        let Some(room) = open.and_then(|open| open.bundle.room(len)) else {
            return false;
        };
        read(frame, header_len, room);
        let beginning = room.first_chunk();
        beginning.map(|beginning| *front = *beginning).is_some()
    }

    /// Whether the mailbox that is open is that port's, for a frame with so much undone.
    pub(super) fn takes(&self, port: usize, undone: Offloads) -> bool {
        let open = self.open.as_ref().filter(|open| open.port == port);
        open.is_some_and(|open| open.taken.contains(undone))
    }

    /// What was staged last is a frame.
    pub(super) fn keep_staged(&mut self, len: usize) {
        if let Some(open) = &mut self.open {
            open.bundle.keep(len);
        }
    }
    /// Tells the receivers.
    pub(super) fn finish(mut self) {
        self.open = None;
        self.to_wake.iter().for_each(|mailbox| mailbox.delivered());
    }
}

/// Copies the beginning of a frame, behind a header of 12 bytes whatever the guest's is.
pub(super) fn read(frame: &Buffers, header_len: usize, out: &mut [u8]) {
    let modern = HeaderLen::Modern.bytes();
    if header_len == modern {
        frame.read_at(0, out);
    } else if let Some((header, rest)) = out.split_at_mut_checked(modern) {
        header.fill(0);
        frame.read_at(0, &mut header[..header_len.min(modern)]);
        frame.read_at(header_len, rest);
    }
}

/// A frame as it is copied: its front, which was looked at, and the rest of it from the guest.
#[derive(Clone, Copy)]
pub(super) struct Copy<'a> {
    front: &'a Front,
    frame: &'a Buffers,
    header_len: usize,
}

impl<'a> Copy<'a> {
    /// `header_len` is that of the frame's own header.
    pub(super) fn new(front: &'a Front, frame: &'a Buffers, header_len: usize) -> Self {
        Self {
            front,
            frame,
            header_len,
        }
    }

    /// With a header of 12 bytes.
    pub(super) fn len(&self) -> usize {
        HeaderLen::Modern.bytes() + self.frame.len() - self.header_len
    }

    pub(super) fn write(&self, room: &mut [u8]) {
        let (front, rest) = room.split_at_mut(self.front.len().min(room.len()));
        front.copy_from_slice(&self.front[..front.len()]);
        self.frame.read_at(self.header_len + MIN_FRAME, rest);
    }
}
