//! A guest of our own: a driver and the sockets behind it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use lab::frontend::vsock::{HOST_CID, Header, STREAM, Vsock, op};
use lab::frontend::{DriverQueue, FrontEnd, GuestMemory, ProtocolFeatures, features};

use super::{CID, Host, SOON};

pub const RECEIVE: u32 = 1;
pub const SEND: u32 = 2;
/// Longest packet of Linux' driver.
const MOST: usize = 64 << 10;
const FIRST_PORT: u32 = 10_000;

/// A connection: the guest's port and the host's.
pub type Id = (u32, u32);

/// One end of a connection.
#[derive(Debug, Default)]
pub struct Socket {
    pub connected: bool,
    pub reset: bool,
    /// What the host has said to do no more.
    pub shut: u32,
    /// Bytes that nobody has taken.
    pub received: Vec<u8>,
    arrived: u32,
    taken: u32,
    told: u32,
    sent: u32,
    peer_alloc: u32,
    peer_fwd: u32,
}

impl Socket {
    /// Bytes that may be sent.
    pub fn credit(&self) -> usize {
        let under_way = self.sent.wrapping_sub(self.peer_fwd);
        (self.peer_alloc - under_way) as usize
    }
}

/// A guest.
pub struct Guest {
    pub driver: Vsock,
    pub front_end: FrontEnd,
    pub memory: GuestMemory,
    pub sockets: HashMap<Id, Socket>,
    pub listening: HashSet<u32>,
    /// Connections that the host has begun and nobody has taken.
    pub accepted: VecDeque<Id>,
    /// Bytes that each socket takes before somebody takes them.
    pub window: u32,
    next_port: u32,
}

impl Guest {
    pub fn new(host: &Host) -> Self {
        Self::with_buffers(host, 128, 4096)
    }

    pub fn with_buffers(host: &Host, buffers: u16, buffer_len: usize) -> Self {
        let memory = GuestMemory::with_size(64 << 20).unwrap();
        let mut front_end = connect(host, &memory);
        let driver = Vsock::start(&mut front_end, buffers, buffer_len).unwrap();
        Self::of(front_end, memory, driver)
    }

    pub fn of(front_end: FrontEnd, memory: GuestMemory, driver: Vsock) -> Self {
        Self {
            driver,
            front_end,
            memory,
            sockets: HashMap::new(),
            listening: HashSet::new(),
            accepted: VecDeque::new(),
            window: 256 << 10,
            next_port: FIRST_PORT,
        }
    }

    /// The event queue, with a buffer.
    pub fn events(&mut self) -> DriverQueue {
        let mut queue = self.front_end.set_up_queue(2, 8).unwrap();
        post_event_buffer(&mut queue, &self.memory);
        queue
    }

    pub fn header(&self, id: Id, op: u16) -> Header {
        let taken = self.sockets.get(&id).map_or(0, |socket| socket.taken);
        Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: id.0,
            dst_port: id.1,
            kind: STREAM,
            op,
            buf_alloc: self.window,
            fwd_cnt: taken,
            ..Header::default()
        }
    }

    pub fn say(&mut self, id: Id, op: u16, flags: u32) {
        let header = Header {
            flags,
            ..self.header(id, op)
        };
        self.driver.send(header, &[]).unwrap();
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.told = socket.taken;
        }
    }

    /// Asks for a port of the host's.
    pub fn connect(&mut self, port: u32) -> Id {
        let id = (self.next_port, port);
        self.next_port += 1;
        self.sockets.insert(id, Socket::default());
        self.say(id, op::REQUEST, 0);
        id
    }

    /// Sends as much as may be sent in one packet; returns how many bytes.
    pub fn send(&mut self, id: Id, bytes: &[u8]) -> usize {
        let count = bytes.len().min(MOST).min(self.sockets[&id].credit());
        if count > 0 {
            let header = Header {
                len: u32::try_from(count).unwrap(),
                ..self.header(id, op::RW)
            };
            self.driver.send(header, &bytes[..count]).unwrap();
            let socket = self.sockets.get_mut(&id).unwrap();
            socket.told = socket.taken;
            socket.sent = socket.sent.wrapping_add(u32::try_from(count).unwrap());
        }
        count
    }

    /// Sends all, as the host takes it.
    pub fn send_all(&mut self, id: Id, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let sent = self.send(id, bytes);
            bytes = &bytes[sent..];
            if sent == 0 {
                assert!(self.pump(SOON), "no credit comes");
            }
        }
    }

    /// Takes what has come, and tells the host of the room.
    pub fn take(&mut self, id: Id) -> Vec<u8> {
        let window = self.window;
        let socket = self.sockets.get_mut(&id).unwrap();
        let bytes = std::mem::take(&mut socket.received);
        let count = u32::try_from(bytes.len()).unwrap();
        socket.taken = socket.taken.wrapping_add(count);
        if socket.taken.wrapping_sub(socket.told) >= window / 2 {
            self.say(id, op::CREDIT_UPDATE, 0);
        }
        bytes
    }

    /// Handles what the device has sent, waiting for the first packet; whether there was any.
    pub fn pump(&mut self, timeout: Duration) -> bool {
        let mut timeout = timeout;
        let mut any = false;
        while let Some(packet) = self.driver.receive(timeout).unwrap() {
            timeout = Duration::ZERO;
            any = true;
            let header = packet.header;
            assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, CID));
            assert_eq!(header.kind, STREAM);
            self.handle((header.dst_port, header.src_port), header, packet.payload);
        }
        any
    }

    fn handle(&mut self, id: Id, header: Header, payload: Vec<u8>) {
        if header.op == op::REQUEST {
            if self.listening.contains(&id.0) {
                assert!(self.sockets.insert(id, Socket::default()).is_none());
                self.accepted.push_back(id);
                self.say(id, op::RESPONSE, 0);
            } else {
                self.say(id, op::RST, 0);
            }
        }
        let window = self.window;
        let Some(socket) = self.sockets.get_mut(&id) else {
            if header.op != op::RST && header.op != op::REQUEST {
                self.say(id, op::RST, 0);
            }
            return;
        };
        (socket.peer_alloc, socket.peer_fwd) = (header.buf_alloc, header.fwd_cnt);
        match header.op {
            op::REQUEST | op::RESPONSE => socket.connected = true,
            op::RST => socket.reset = true,
            op::SHUTDOWN => socket.shut |= header.flags,
            op::RW => {
                assert!(socket.connected && socket.shut & SEND == 0);
                let count = u32::try_from(payload.len()).unwrap();
                socket.arrived = socket.arrived.wrapping_add(count);
                assert!(
                    socket.arrived.wrapping_sub(socket.taken) <= window,
                    "more than was granted"
                );
                socket.received.extend(payload);
            }
            op::CREDIT_UPDATE => {}
            op::CREDIT_REQUEST => self.say(id, op::CREDIT_UPDATE, 0),
            other => panic!("operation {other}"),
        }
    }

    /// Handles packets until `done`.
    pub fn wait(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + SOON;
        while !done(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(self.pump(left) || done(self), "{what}: it never came");
        }
    }

    /// The next connection that the host begins.
    pub fn accept(&mut self) -> Id {
        self.wait("a connection", |guest| !guest.accepted.is_empty());
        self.accepted.pop_front().unwrap()
    }

    /// Takes `count` bytes.
    pub fn read(&mut self, id: Id, count: usize) -> Vec<u8> {
        let mut bytes = self.take(id);
        while bytes.len() < count {
            assert!(self.pump(SOON), "{} bytes of {count}", bytes.len());
            bytes.extend(self.take(id));
        }
        bytes
    }

    /// Takes all bytes up to the host's end.
    pub fn read_to_end(&mut self, id: Id) -> Vec<u8> {
        let mut bytes = self.take(id);
        while self.sockets[&id].shut & SEND == 0 && !self.sockets[&id].reset {
            assert!(self.pump(SOON), "{} bytes and no end", bytes.len());
            bytes.extend(self.take(id));
        }
        bytes
    }
}

pub fn connect(host: &Host, memory: &GuestMemory) -> FrontEnd {
    let mut front_end = FrontEnd::connect(&host.socket(), SOON).unwrap();
    let protocol = ProtocolFeatures::CONFIG | ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
    let wanted = features::VERSION_1 | features::EVENT_IDX | features::INDIRECT_DESC | 1;
    front_end.handshake(wanted, protocol).unwrap();
    front_end.set_mem_table(memory).unwrap();
    front_end
}

pub fn post_event_buffer(queue: &mut DriverQueue, memory: &GuestMemory) {
    let addr = memory.alloc(4, 64).unwrap();
    memory.fill(addr, 0xee, 4).unwrap();
    let segment = lab::frontend::Segment::writable(addr, 4);
    queue.submit(&[segment], false).unwrap();
}
