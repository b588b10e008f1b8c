//! A virtio-net driver (virtio 1.2, 5.1): transmit, receive, control.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::exchange::length;
use super::{DriverQueue, Error, Exchange, GuestAddress, Result, Segment, Ticket};

/// Bytes of `struct virtio_net_hdr` with `num_buffers` (virtio 1.2, 5.1.6).
pub const HEADER_LEN: usize = 12;
/// The control queue's reply when the command was carried out (virtio 1.2, 5.1.6.5).
pub const ACK_OK: u8 = 0;
/// The control queue's reply when the command failed.
pub const ACK_ERR: u8 = 1;

/// The header before every frame (virtio 1.2, 5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `VIRTIO_NET_HDR_F_*`.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`.
    pub gso_type: u8,
    /// Length of the headers that each segment repeats.
    pub hdr_len: u16,
    /// Payload of a segment.
    pub gso_size: u16,
    /// From where the checksum is computed.
    pub csum_start: u16,
    /// Where the checksum goes, from `csum_start` on.
    pub csum_offset: u16,
    /// Buffers that a received frame covers.
    pub num_buffers: u16,
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [gso, start] = [self.gso_size.to_le_bytes(), self.csum_start.to_le_bytes()];
        let [offset, buffers] = [
            self.csum_offset.to_le_bytes(),
            self.num_buffers.to_le_bytes(),
        ];
        let len = self.hdr_len.to_le_bytes();
        [
            self.flags,
            self.gso_type,
            len[0],
            len[1],
            gso[0],
            gso[1],
            start[0],
            start[1],
            offset[0],
            offset[1],
            buffers[0],
            buffers[1],
        ]
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        Some(Self {
            flags: *bytes.first()?,
            gso_type: *bytes.get(1)?,
            hdr_len: word(2)?,
            gso_size: word(4)?,
            csum_start: word(6)?,
            csum_offset: word(8)?,
            num_buffers: word(10)?,
        })
    }
}

/// The transmit queue (odd index).
#[derive(Debug)]
pub struct Transmit {
    exchange: Exchange,
}

impl Transmit {
    /// Takes over a queue.
    #[must_use]
    pub fn new(queue: DriverQueue) -> Self {
        Self {
            exchange: Exchange::new(queue),
        }
    }

    /// Sends a frame without awaiting it.
    ///
    /// # Errors
    /// When guest memory or the ring is full.
    pub fn submit(&mut self, header: Header, frame: &[u8]) -> Result<Ticket> {
        self.exchange.submit(&[&header.to_bytes(), frame], &[])
    }

    /// Sends a frame and awaits its buffers.
    ///
    /// # Errors
    /// When the device does not hand the buffers back.
    pub fn send(&mut self, header: Header, frame: &[u8]) -> Result<()> {
        let ticket = self.submit(header, frame)?;
        self.exchange.wait(ticket).map(drop)
    }

    /// What the frames go through: in-flight count, indirect tables, time limit, queue.
    pub fn exchange(&mut self) -> &mut Exchange {
        &mut self.exchange
    }
}

/// A received frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its header.
    pub header: Header,
    /// The frame.
    pub frame: Vec<u8>,
}

/// The receive queue (even index).
#[derive(Debug)]
pub struct Receive {
    queue: DriverQueue,
    buffer_len: usize,
    posted: HashMap<u32, GuestAddress>,
    /// The rest of a frame whose later buffers are still to come.
    partial: Option<(Header, u16, Vec<u8>)>,
    /// Frames that came together with one that was asked for alone.
    waiting: VecDeque<Received>,
}

impl Receive {
    /// Takes over a queue, to be filled with buffers of `buffer_len` bytes. Frames longer than a
    /// buffer need `VIRTIO_NET_F_MRG_RXBUF`.
    #[must_use]
    pub fn new(queue: DriverQueue, buffer_len: usize) -> Self {
        Self {
            queue,
            buffer_len,
            posted: HashMap::new(),
            partial: None,
            waiting: VecDeque::new(),
        }
    }

    /// Posts `count` buffers.
    ///
    /// # Errors
    /// When guest memory or the ring is full.
    pub fn post(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let addr = self.queue.memory().alloc(self.buffer_len, 64)?;
            let segment = Segment::writable(addr, length(self.buffer_len)?);
            let head = self.queue.add_chain(&[segment], false)?;
            self.posted.insert(u32::from(head), addr);
        }
        self.queue.kick().map(drop)
    }

    /// Receives at least one frame, or none within `timeout`. Buffers are posted again.
    ///
    /// # Errors
    /// When the device breaks the rules of the ring or of mergeable buffers.
    pub fn receive(&mut self, timeout: Duration) -> Result<Vec<Received>> {
        let deadline = Instant::now() + timeout;
        let mut frames: Vec<_> = self.waiting.drain(..).collect();
        while frames.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let used = self.queue.wait_used(left)?;
            if used.is_empty() {
                break;
            }
            let count = used.len();
            for entry in used {
                frames.extend(self.take(entry.id, entry.len)?);
            }
            self.post(count)?;
        }
        Ok(frames)
    }

    /// The next frame, or none within `timeout`. Those that came with it wait for the next call.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_one(&mut self, timeout: Duration) -> Result<Option<Received>> {
        if self.waiting.is_empty() {
            self.waiting = self.receive(timeout)?.into();
        }
        Ok(self.waiting.pop_front())
    }

    fn take(&mut self, id: u32, used_len: u32) -> Result<Option<Received>> {
        let queue = self.queue.index();
        let bad = |why: String| Error::BadReply { queue, why };
        let addr = self
            .posted
            .remove(&id)
            .ok_or(Error::UnknownUsed { queue, id })?;
        let len = usize::try_from(used_len).unwrap_or(usize::MAX);
        if len > self.buffer_len {
            return Err(bad(format!(
                "{len} bytes used of a buffer of {}",
                self.buffer_len
            )));
        }
        let bytes = self.queue.memory().read(addr, len)?;
        self.queue.memory().free(addr, self.buffer_len, 64);
        // A device that stops gives back what it holds: Linux drops it as a short packet.
        if len == 0 && self.partial.is_none() {
            return Ok(None);
        }
        let (header, left, frame) = match self.partial.take() {
            Some((header, left, frame)) => (header, left, [frame, bytes].concat()),
            None => {
                let header = Header::parse(&bytes)
                    .ok_or_else(|| bad(format!("{len} bytes hold no frame header")))?;
                // Without mergeable buffers older devices leave num_buffers at zero.
                (
                    header,
                    header.num_buffers.max(1),
                    bytes[HEADER_LEN..].to_vec(),
                )
            }
        };
        if left > 1 {
            self.partial = Some((header, left - 1, frame));
            return Ok(None);
        }
        Ok(Some(Received { header, frame }))
    }

    /// The queue underneath.
    pub fn queue_mut(&mut self) -> &mut DriverQueue {
        &mut self.queue
    }
}

/// The control queue (the last one).
#[derive(Debug)]
pub struct Control {
    exchange: Exchange,
}

impl Control {
    /// Takes over a queue.
    #[must_use]
    pub fn new(queue: DriverQueue) -> Self {
        Self {
            exchange: Exchange::new(queue),
        }
    }

    /// Gives a command (virtio 1.2, 5.1.6.5): the device's ack byte.
    ///
    /// # Errors
    /// When the device does not answer.
    pub fn command(&mut self, class: u8, command: u8, data: &[u8]) -> Result<u8> {
        let ticket = self.exchange.submit(&[&[class, command], data], &[1])?;
        let reply = self.exchange.wait(ticket)?;
        reply
            .buffers
            .concat()
            .first()
            .copied()
            .ok_or_else(|| Error::BadReply {
                queue: self.exchange.queue().index(),
                why: "a command without an ack byte".to_owned(),
            })
    }

    /// What the commands go through: indirect tables, time limit, queue.
    pub fn exchange(&mut self) -> &mut Exchange {
        &mut self.exchange
    }
}
