//! One port of the switch.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use smallvec::SmallVec;
use vhost_daemon::sys::Buffers;

use super::Shared;
use super::mailbox::{Bundle, Mailbox};
use super::table::Table;
use crate::backend::{FrameSink, FrameSource, Offloads, Port, PortError};
use crate::config::Mac;
use crate::header::{HeaderLen, MIN_FRAME};
use crate::offload::{self, FrameHeader};
use crate::sys::Scatter;

/// A port: where one guest is connected.
pub struct SwitchPort {
    shared: Arc<Shared>,
    index: usize,
    mtu: Option<u16>,
    header_len: Arc<AtomicUsize>,
}

impl SwitchPort {
    pub(super) fn new(shared: Arc<Shared>, index: usize, mtu: Option<u16>) -> Self {
        Self {
            shared,
            index,
            mtu,
            header_len: Arc::new(AtomicUsize::new(HeaderLen::Modern.bytes())),
        }
    }

    fn inlet(&self) -> io::Result<&super::Inlet> {
        let inlet = self.shared.ports.get(self.index);
        inlet.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Port for SwitchPort {
    type Source = SwitchSource;
    type Sink = SwitchSink;

    fn lanes(&self) -> usize {
        self.inlet().map_or(0, |inlet| inlet.lanes.len())
    }

    fn source(&self, lane: usize) -> io::Result<SwitchSource> {
        let mailbox = self.inlet()?.lanes.get(lane).cloned();
        Ok(SwitchSource {
            mailbox: mailbox.ok_or(io::ErrorKind::NotFound)?,
            reading: Bundle::new()?,
            header_len: self.header_len.clone(),
        })
    }

    fn sink(&self, lane: usize) -> io::Result<SwitchSink> {
        Ok(SwitchSink {
            shared: self.shared.clone(),
            port: self.index,
            lane,
            header_len: self.header_len.clone(),
            heard: None,
            sent_to: None,
            whole: Vec::new(),
        })
    }

    /// Whatever a guest does not take unfinished is finished here.
    fn offloads(&self) -> Offloads {
        let tcp = Offloads::TSO4 | Offloads::TSO6 | Offloads::TSO_ECN;
        Offloads::CHECKSUM | tcp | Offloads::USO
    }

    fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    fn agree(&self, offloads: Offloads, header: HeaderLen) -> io::Result<()> {
        self.header_len.store(header.bytes(), Ordering::Release);
        self.inlet()?.agree(offloads, header);
        Ok(())
    }

    fn open_lane(&self, index: usize, open: bool) -> io::Result<()> {
        self.inlet()?.set_open(index, open);
        Ok(())
    }
}

/// Frames for one receive queue.
pub struct SwitchSource {
    mailbox: Arc<Mailbox>,
    reading: Bundle,
    header_len: Arc<AtomicUsize>,
}

impl FrameSource for SwitchSource {
    fn receive(
        &mut self,
        places: &mut [Scatter<'_>],
        each: &mut dyn FnMut(usize, usize),
    ) -> Result<bool, PortError> {
        let header_len = self.header_len.load(Ordering::Acquire);
        for (index, place) in places.iter_mut().enumerate() {
            if self.reading.is_empty() && !self.mailbox.collect(&mut self.reading) {
                return Ok(false);
            }
            let frame = self.reading.next().unwrap_or_default();
            if header_len == HeaderLen::Modern.bytes() {
                each(index, place.fill(&[frame]));
                continue;
            }
            let (header, frame) = frame.split_at(HeaderLen::Modern.bytes().min(frame.len()));
            let header = header.get(..header_len).unwrap_or(header);
            each(index, place.fill(&[header, frame]));
        }
        Ok(true)
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.mailbox.as_fd()
    }
}

/// Frames from one transmit queue.
pub struct SwitchSink {
    shared: Arc<Shared>,
    port: usize,
    lane: usize,
    header_len: Arc<AtomicUsize>,
    /// The sender told to the table last, and how long that holds.
    heard: Option<(Mac, Instant)>,
    /// Where the last frame went, as the table said then.
    sent_to: Option<(Mac, usize, Instant)>,
    /// A frame that has to be finished here.
    whole: Vec<u8>,
}

/// Mailboxes that are being filled: the one in use is locked.
struct Delivery<'a> {
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

/// Frames of more bytes are not copied before it is known where they go: a second copy of one would cost
/// more than the first of its front by itself saves.
const STAGED: usize = 2048;

/// The part of a frame that is decided on: virtio header and Ethernet header.
type Front = [u8; HeaderLen::Modern.bytes() + MIN_FRAME];

impl FrameSink for SwitchSink {
    fn send(&mut self, frames: &[&Buffers], each: &mut dyn FnMut(usize, Result<(), PortError>)) {
        let shared = self.shared.clone();
        let header_len = self.header_len.load(Ordering::Acquire);
        let now = Instant::now();
        let mut delivery = Delivery {
            open: None,
            to_wake: SmallVec::new(),
        };
        for (index, frame) in frames.iter().enumerate() {
            let outcome = self.forward(&shared, &mut delivery, frame, header_len, now);
            each(index, outcome);
        }
        delivery.open = None;
        delivery
            .to_wake
            .iter()
            .for_each(|mailbox| mailbox.delivered());
    }
}

impl SwitchSink {
    fn forward<'a>(
        &mut self,
        shared: &'a Shared,
        delivery: &mut Delivery<'a>,
        frame: &Buffers,
        header_len: usize,
        now: Instant,
    ) -> Result<(), PortError> {
        // Most often a frame goes where the last one went: it is copied there, and decided on then.
        let mut front: Front = [0; _];
        let staged = delivery.stage(frame, header_len, &mut front);
        if !staged {
            read(frame, header_len, &mut front);
        }
        let ethernet = HeaderLen::Modern.bytes();
        let frame_len = frame.len().saturating_sub(header_len);
        let header = FrameHeader::parse(&front, frame_len).ok_or(PortError::Malformed)?;
        let [to, from] = [0, 6].map(|at| mac(&front[ethernet + at..]));
        self.hear(shared, from, now);
        let copy = Copy {
            front: &front,
            frame,
            header_len,
        };
        match self.port_of(shared, to, now) {
            // Whoever is where the frame comes from has it already.
            Some(port) if port == self.port => Ok(()),
            Some(port) if staged && delivery.takes(port, header.undone()) => {
                delivery.keep_staged(copy.len());
                Ok(())
            }
            Some(port) => self.deliver(shared, delivery, port, header, copy),
            None => {
                let others = (0..shared.ports.len()).filter(|port| *port != self.port);
                for port in others.collect::<SmallVec<[usize; 8]>>() {
                    // To all: whether each has room is its own matter.
                    let _ = self.deliver(shared, delivery, port, header, copy);
                }
                Ok(())
            }
        }
    }

    fn hear(&mut self, shared: &Shared, from: Mac, now: Instant) {
        if !matches!(self.heard, Some((heard, until)) if heard == from && now < until) {
            shared.table.learn(from, self.port, now);
            self.heard = Some((from, now + Table::REFRESH));
        }
    }

    fn port_of(&mut self, shared: &Shared, to: Mac, now: Instant) -> Option<usize> {
        // A station that moves is found again after a batch.
        if let Some((known, port, at)) = self.sent_to
            && (known, at) == (to, now)
        {
            return Some(port);
        }
        if !to.is_station() {
            return None;
        }
        let port = shared.table.port(to, now)?;
        self.sent_to = Some((to, port, now));
        Some(port)
    }

    fn deliver<'a>(
        &mut self,
        shared: &'a Shared,
        delivery: &mut Delivery<'a>,
        port: usize,
        header: FrameHeader,
        copy: Copy<'_>,
    ) -> Result<(), PortError> {
        let mailbox = delivery.open(shared, port, self.lane)?;
        let bundle = &mut *mailbox.bundle;
        if mailbox.taken.contains(header.undone()) {
            let len = copy.len();
            let room = bundle.room(len).ok_or(PortError::Again)?;
            copy.write(room);
            bundle.keep(len);
            return Ok(());
        }
        self.whole.resize(copy.len(), 0);
        copy.write(&mut self.whole);
        let mut outcome = Ok(());
        let finished = offload::finish(header, &self.whole, |header, parts| {
            let len = header.len() + parts.iter().map(|part| part.len()).sum::<usize>();
            let Some(mut room) = bundle.room(len) else {
                outcome = Err(PortError::Again);
                return false;
            };
            for part in [&[&header[..]], parts].concat() {
                let (here, rest) = room.split_at_mut(part.len());
                here.copy_from_slice(part);
                room = rest;
            }
            bundle.keep(len);
            true
        });
        finished.map_err(|_| PortError::Malformed)?;
        outcome
    }
}

impl<'a> Delivery<'a> {
    /// The mailbox of a port for what comes from a sender's lane `from`.
    fn open(
        &mut self,
        shared: &'a Shared,
        port: usize,
        from: usize,
    ) -> Result<&mut OpenMailbox<'a>, PortError> {
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
        self.open.as_mut().ok_or(PortError::Down)
    }

    /// Copies a frame behind those in the open mailbox without making it one of them; `front` gets its
    /// beginning. `false`, without a copy, if no mailbox is open or it is full, or the frame is long.
    fn stage(&mut self, frame: &Buffers, header_len: usize, front: &mut Front) -> bool {
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
    fn takes(&self, port: usize, undone: Offloads) -> bool {
        let open = self.open.as_ref().filter(|open| open.port == port);
        open.is_some_and(|open| open.taken.contains(undone))
    }

    /// What was staged last is a frame.
    fn keep_staged(&mut self, len: usize) {
        if let Some(open) = &mut self.open {
            open.bundle.keep(len);
        }
    }
}

/// Copies the beginning of a frame, behind a header of 12 bytes whatever the guest's is.
fn read(frame: &Buffers, header_len: usize, out: &mut [u8]) {
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
struct Copy<'a> {
    front: &'a Front,
    frame: &'a Buffers,
    header_len: usize,
}

impl Copy<'_> {
    /// With a header of 12 bytes.
    fn len(&self) -> usize {
        HeaderLen::Modern.bytes() + self.frame.len() - self.header_len
    }

    fn write(&self, room: &mut [u8]) {
        let (front, rest) = room.split_at_mut(self.front.len().min(room.len()));
        front.copy_from_slice(&self.front[..front.len()]);
        self.frame.read_at(self.header_len + MIN_FRAME, rest);
    }
}

fn mac(bytes: &[u8]) -> Mac {
    bytes
        .first_chunk()
        .map_or(Mac::default(), |bytes| Mac(*bytes))
}
