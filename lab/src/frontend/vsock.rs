//! A virtio-vsock driver (virtio 1.2, 5.10): packets to the device and from it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::exchange::length;
use super::{DriverQueue, Error, Exchange, FrontEnd, GuestAddress, Result, Segment, Used};

/// Bytes of `struct virtio_vsock_hdr` (virtio 1.2, 5.10.6).
pub const HEADER_LEN: usize = 44;
/// The host's context id.
pub const HOST_CID: u64 = 2;
/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub const STREAM: u16 = 1;

/// `enum virtio_vsock_op` (virtio 1.2, 5.10.6).
pub mod op {
    /// Wants a connection.
    pub const REQUEST: u16 = 1;
    /// Grants it.
    pub const RESPONSE: u16 = 2;
    /// Refuses or ends it.
    pub const RST: u16 = 3;
    /// Ends a direction.
    pub const SHUTDOWN: u16 = 4;
    /// Carries bytes.
    pub const RW: u16 = 5;
    /// Tells of room.
    pub const CREDIT_UPDATE: u16 = 6;
    /// Asks for that.
    pub const CREDIT_REQUEST: u16 = 7;
}

/// The header of every packet, with any values at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Who sends.
    pub src_cid: u64,
    /// To whom.
    pub dst_cid: u64,
    /// The sender's port.
    pub src_port: u32,
    /// The receiver's port.
    pub dst_port: u32,
    /// Bytes of payload.
    pub len: u32,
    /// The socket's type.
    pub kind: u16,
    /// See [`op`].
    pub op: u16,
    /// Flags of the operation.
    pub flags: u32,
    /// The sender's buffer.
    pub buf_alloc: u32,
    /// Bytes that have left it.
    pub fwd_cnt: u32,
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let words = [self.src_port, self.dst_port, self.len];
        let halves = [self.kind, self.op];
        let rest = [self.flags, self.buf_alloc, self.fwd_cnt];
        let cids = [self.src_cid, self.dst_cid].map(u64::to_le_bytes).concat();
        let words = words.map(u32::to_le_bytes).concat();
        let halves = halves.map(u16::to_le_bytes).concat();
        let rest = rest.map(u32::to_le_bytes).concat();
        [cids, words, halves, rest].concat()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        Some(Self {
            src_cid: long(0)?,
            dst_cid: long(8)?,
            src_port: word(16)?,
            dst_port: word(20)?,
            len: word(24)?,
            kind: half(28)?,
            op: half(30)?,
            flags: word(32)?,
            buf_alloc: word(36)?,
            fwd_cnt: word(40)?,
        })
    }
}

/// A packet from the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its header.
    pub header: Header,
    /// The bytes behind it.
    pub payload: Vec<u8>,
}

/// The driver's two data queues.
#[derive(Debug)]
pub struct Vsock {
    transmit: Exchange,
    receive: DriverQueue,
    buffer_len: usize,
    posted: HashMap<u32, GuestAddress>,
    waiting: VecDeque<Packet>,
}

impl Vsock {
    /// Sets up queues 0 and 1; `buffers` of `buffer_len` bytes are there for what comes.
    ///
    /// # Errors
    /// When the session or guest memory does not allow it.
    pub fn start(front_end: &mut FrontEnd, buffers: u16, buffer_len: usize) -> Result<Self> {
        let receive = front_end.set_up_queue(0, buffers.next_power_of_two())?;
        let transmit = front_end.set_up_queue(1, 128)?;
        let mut driver = Self::new(receive, transmit, buffer_len);
        driver.post(buffers)?;
        Ok(driver)
    }

    /// Takes over two queues; there are no buffers yet.
    #[must_use]
    pub fn new(receive: DriverQueue, transmit: DriverQueue, buffer_len: usize) -> Self {
        Self {
            transmit: Exchange::new(transmit),
            receive,
            buffer_len,
            posted: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Posts `count` receive buffers.
    ///
    /// # Errors
    /// When guest memory or the ring is full.
    pub fn post(&mut self, count: u16) -> Result<()> {
        for _ in 0..count {
            let addr = self.receive.memory().alloc(self.buffer_len, 64)?;
            let segment = Segment::writable(addr, length(self.buffer_len)?);
            let head = self.receive.add_chain(&[segment], false)?;
            self.posted.insert(u32::from(head), addr);
        }
        self.receive.kick().map(drop)
    }

    /// Sends a packet and awaits its buffers.
    ///
    /// # Errors
    /// When the device does not hand the buffers back.
    pub fn send(&mut self, header: Header, payload: &[u8]) -> Result<()> {
        let bytes = header.to_bytes();
        let ticket = self.transmit.submit(&[&bytes, payload], &[])?;
        self.transmit.wait(ticket).map(drop)
    }

    /// The next packet, or none within `timeout`. Buffers are posted again.
    ///
    /// # Errors
    /// When the device breaks the rules of the ring.
    pub fn receive(&mut self, timeout: Duration) -> Result<Option<Packet>> {
        let deadline = Instant::now() + timeout;
        while self.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let used = self.used_within(left)?;
            if used.is_empty() {
                return Ok(None);
            }
            let count = u16::try_from(used.len()).unwrap_or(u16::MAX);
            for entry in used {
                let packet = self.take(entry.id, entry.len)?;
                self.waiting.extend(packet);
            }
            self.post(count)?;
        }
        Ok(self.waiting.pop_front())
    }

    /// Interrupts come a little behind what they tell of, so only a long wait shows one that is lost.
    fn used_within(&mut self, wait: Duration) -> Result<Vec<Used>> {
        const LONG: Duration = Duration::from_millis(100);
        const PAUSE: Duration = Duration::from_micros(100);
        if wait >= LONG {
            return self.receive.wait_used(wait);
        }
        let deadline = Instant::now() + wait;
        loop {
            let used = self.receive.poll_used()?;
            if !used.is_empty() || Instant::now() >= deadline {
                return Ok(used);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// An empty buffer is one that the device gave back unused, as it may when it stops.
    fn take(&mut self, id: u32, used_len: u32) -> Result<Option<Packet>> {
        let queue = self.receive.index();
        let addr = self
            .posted
            .remove(&id)
            .ok_or(Error::UnknownUsed { queue, id })?;
        let len = usize::try_from(used_len).unwrap_or(usize::MAX);
        let bad = |why: String| Error::BadReply { queue, why };
        if len > self.buffer_len {
            let why = format!("{len} bytes used of a buffer of {}", self.buffer_len);
            return Err(bad(why));
        }
        let mut bytes = self.receive.memory().read(addr, len)?;
        self.receive.memory().free(addr, self.buffer_len, 64);
        if bytes.is_empty() {
            return Ok(None);
        }
        let header = Header::parse(&bytes).ok_or_else(|| bad(format!("{len} bytes only")))?;
        let payload = bytes.split_off(HEADER_LEN);
        if payload.len() != usize::try_from(header.len).unwrap_or(usize::MAX) {
            let why = format!("{} bytes behind a header of {}", payload.len(), header.len);
            return Err(bad(why));
        }
        Ok(Some(Packet { header, payload }))
    }

    /// What packets to the device go through.
    pub fn transmit(&mut self) -> &mut Exchange {
        &mut self.transmit
    }

    /// The receive queue.
    pub fn receive_queue(&mut self) -> &mut DriverQueue {
        &mut self.receive
    }
}
