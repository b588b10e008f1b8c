//! What a guest sends over the switch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use smallvec::SmallVec;
use vhost_daemon::sys::Buffers;

use super::Shared;
use super::delivery::{Copy, Delivery, Front, read};
use super::table::Table;
use crate::backend::{FrameSink, PortError};
use crate::config::Mac;
use crate::header::HeaderLen;
use crate::offload::{self, FrameHeader};

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

impl SwitchSink {
    /// What a guest at `port` sends from its transmit queue `lane`.
    pub(super) fn new(
        shared: Arc<Shared>,
        port: usize,
        lane: usize,
        header_len: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            shared,
            port,
            lane,
            header_len,
            heard: None,
            sent_to: None,
            whole: Vec::new(),
        }
    }
}

impl FrameSink for SwitchSink {
    fn send(&mut self, frames: &[&Buffers], each: &mut dyn FnMut(usize, Result<(), PortError>)) {
        let shared = self.shared.clone();
        let header_len = self.header_len.load(Ordering::Acquire);
        let now = Instant::now();
        let mut delivery = Delivery::default();
        for (index, frame) in frames.iter().enumerate() {
            let outcome = self.forward(&shared, &mut delivery, frame, header_len, now);
            each(index, outcome);
        }
        delivery.finish();
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
        let copy = Copy::new(&front, frame, header_len);
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
        let (bundle, taken) = delivery.open(shared, port, self.lane)?;
        if taken.contains(header.undone()) {
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

fn mac(bytes: &[u8]) -> Mac {
    bytes
        .first_chunk()
        .map_or(Mac::default(), |bytes| Mac(*bytes))
}
