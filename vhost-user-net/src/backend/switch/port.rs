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
            reading: Bundle::new(),
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
    /// The sender told to the table last, and when.
    heard: Option<(Mac, Instant)>,
    /// Where the last frame went, as the table said then.
    sent_to: Option<(Mac, usize, Instant)>,
    /// A frame that has to be finished here.
    whole: Vec<u8>,
}

/// Mailboxes that are being filled: the one in use is locked.
struct Delivery<'a> {
    open: Option<(usize, MutexGuard<'a, Bundle>)>,
    to_wake: SmallVec<[&'a Arc<Mailbox>; 4]>,
}

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
        // Copied once: what is decided on is what is forwarded, at the front of it.
        let mut front = [0; HeaderLen::Modern.bytes() + MIN_FRAME];
        frame.read_at(0, &mut front[..header_len]);
        let ethernet = HeaderLen::Modern.bytes();
        frame.read_at(header_len, &mut front[ethernet..]);
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
        let fresh = |(heard, at): (Mac, Instant)| {
            heard == from && now.saturating_duration_since(at) < Table::REFRESH
        };
        if !self.heard.is_some_and(fresh) {
            shared.table.learn(from, self.port, now);
            self.heard = Some((from, now));
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
        let inlet = shared.ports.get(port).ok_or(PortError::Down)?;
        // Nobody listens there: the frame is lost as on a wire that is not plugged in.
        let mailbox = inlet.lane(self.lane).ok_or(PortError::Down)?;
        let bundle = delivery.open(port, mailbox);
        if inlet.takes(header.undone()) {
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
                return;
            };
            for part in [&[&header[..]], parts].concat() {
                let (here, rest) = room.split_at_mut(part.len());
                here.copy_from_slice(part);
                room = rest;
            }
            bundle.keep(len);
        });
        finished.map_err(|_| PortError::Malformed)?;
        outcome
    }
}

impl<'a> Delivery<'a> {
    fn open(&mut self, port: usize, mailbox: &'a Arc<Mailbox>) -> &mut Bundle {
        if self.open.as_ref().is_none_or(|(open, _)| *open != port) {
            // One lock at a time: two senders cannot wait for each other.
            self.open = None;
            if !self.to_wake.iter().any(|known| Arc::ptr_eq(known, mailbox)) {
                self.to_wake.push(mailbox);
            }
        }
        let (_, bundle) = self.open.get_or_insert_with(|| (port, mailbox.lock()));
        bundle
    }
}

/// A frame as it is copied: its front, which was looked at, and the rest of it from the guest.
#[derive(Clone, Copy)]
struct Copy<'a> {
    front: &'a [u8; HeaderLen::Modern.bytes() + MIN_FRAME],
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
