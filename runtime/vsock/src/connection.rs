//! A connection: two directions, each in the hands of one queue's thread.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vhost_daemon::sys::Buffers;

use crate::packet::{Credit, Fault, Header, Key, Op, STREAM};
use crate::sys;

/// What the transmit queue's thread wants of the receive queue's thread, as bits.
pub mod due {
    /// The guest is told that its request is granted.
    pub const RESPONSE: u8 = 1;
    /// The socket is to be read: the connection stands, or there is credit again.
    pub const READ: u8 = 2;
    /// The guest is told how much room there is.
    pub const CREDIT: u8 = 4;
    /// The guest is told that the host receives no more.
    pub const DEAF: u8 = 8;
    /// The guest is told that the connection is over.
    pub const RESET: u8 = 16;
}

/// A connection between a program of the host's and one of the guest's.
///
/// [`Inbound`] belongs to the receive queue's thread, [`Outbound`] to the transmit queue's: while bytes
/// flow neither takes the other's lock, and what one has to know of the other is in atomics. Who takes
/// both takes [`Outbound`] first.
#[derive(Debug)]
pub struct Connection {
    /// Never used twice.
    pub id: u64,
    /// Its ports.
    pub key: Key,
    /// The host's program.
    pub socket: UnixStream,
    /// Our buffer for what the guest sends.
    room: u32,
    /// The guest's [`Credit`].
    guest: AtomicU64,
    forwarded: AtomicU32,
    told: AtomicU32,
    due: AtomicU8,
    starved: AtomicBool,
    hung_up: AtomicBool,
    inbound: Mutex<Inbound>,
    outbound: Mutex<Outbound>,
}

/// Host → guest.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Both sides know of the connection, and it is not over.
    pub open: bool,
    /// The guest has been asked for it and has not answered.
    pub requested: bool,
    /// It waits for its turn to be read.
    pub queued: bool,
    /// The program sends no more.
    pub ended: bool,
    /// Which shutdown flags the guest was told.
    pub said: u32,
    /// Bytes sent to the guest, ever, modulo 2^32.
    pub sent: u32,
}

/// Guest → host.
#[derive(Debug, Default)]
pub struct Outbound {
    /// The connection stands.
    pub accepted: bool,
    /// Which shutdown flags the guest has sent.
    pub shut: u32,
    /// The program sees no more bytes than it has got.
    pub finished: bool,
    /// The program has gone or receives no more: what comes is dropped.
    pub deaf: bool,
    /// The guest has forgotten the connection; only `rest` is left of it.
    pub forgotten: bool,
    /// Epoll knows the socket.
    pub watched: bool,
    /// It will tell when there is room.
    pub waiting: bool,
    /// The guest knows that the host receives no more.
    pub told: bool,
    /// What the socket had no room for.
    rest: VecDeque<u8>,
}

impl Connection {
    /// Between `socket` and the guest's port; `room` bytes may wait for the socket.
    pub fn new(id: u64, key: Key, socket: UnixStream, room: u32) -> Self {
        Self {
            id,
            key,
            socket,
            room,
            guest: AtomicU64::new(0),
            forwarded: AtomicU32::new(0),
            told: AtomicU32::new(0),
            due: AtomicU8::new(0),
            starved: AtomicBool::new(false),
            hung_up: AtomicBool::new(false),
            inbound: Mutex::default(),
            outbound: Mutex::default(),
        }
    }

    /// Host → guest. For the receive queue's thread, and for who ends the connection.
    pub fn inbound(&self) -> MutexGuard<'_, Inbound> {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Guest → host. For the transmit queue's thread, and for who ends the connection.
    pub fn outbound(&self) -> MutexGuard<'_, Outbound> {
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to what is due; `true` if nothing was.
    pub fn make_due(&self, bits: u8) -> bool {
        self.due.fetch_or(bits, Ordering::AcqRel) == 0
    }

    /// Takes what is due.
    pub fn take_due(&self) -> u8 {
        self.due.swap(0, Ordering::AcqRel)
    }

    /// The guest said how much it can take; `true` if that was waited for.
    pub fn learn_credit(&self, credit: Credit) -> bool {
        let both = u64::from(credit.buf_alloc) << 32 | u64::from(credit.fwd_cnt);
        if self.guest.swap(both, Ordering::SeqCst) == both {
            return false;
        }
        self.starved.load(Ordering::SeqCst) && self.starved.swap(false, Ordering::SeqCst)
    }

    /// How many bytes the guest can take when it was sent `sent`. At 0,
    /// [`learn_credit`](Self::learn_credit) will tell of more.
    pub fn credit(&self, sent: u32) -> usize {
        let left = self.credit_now(sent);
        if left > 0 {
            return left;
        }
        self.starved.store(true, Ordering::SeqCst);
        // It may have come in between: then either this or `learn_credit` sees the other.
        let left = self.credit_now(sent);
        if left > 0 {
            self.starved.store(false, Ordering::SeqCst);
        }
        left
    }

    fn credit_now(&self, sent: u32) -> usize {
        let [a, b, c, d, e, f, g, h] = self.guest.load(Ordering::SeqCst).to_be_bytes();
        let credit = Credit {
            buf_alloc: u32::from_be_bytes([a, b, c, d]),
            fwd_cnt: u32::from_be_bytes([e, f, g, h]),
        };
        usize::try_from(credit.left(sent)).unwrap_or(usize::MAX)
    }

    /// The header of a packet to the guest `cid`, which tells it of our room.
    pub fn header(&self, cid: u64, op: Op, flags: u32, len: usize) -> Header {
        let fwd_cnt = self.forwarded.load(Ordering::Acquire);
        self.told.store(fwd_cnt, Ordering::Relaxed);
        Header {
            src_cid: crate::packet::HOST_CID,
            dst_cid: cid,
            src_port: self.key.host_port,
            dst_port: self.key.guest_port,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            kind: STREAM,
            op: op as u16,
            flags,
            buf_alloc: self.room,
            fwd_cnt,
        }
    }

    /// Whether so much has been forwarded since the guest heard of it that it should. Every packet tells
    /// it, so this is for a guest that mostly sends: four times for each buffer.
    pub fn owes_credit(&self) -> bool {
        let forwarded = self.forwarded.load(Ordering::Relaxed);
        let told = self.told.load(Ordering::Relaxed);
        forwarded.wrapping_sub(told) >= (self.room / 4).max(1)
    }

    /// The program has closed its socket, or neither side sends any more.
    pub fn hang_up(&self) {
        self.hung_up.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub fn is_hung_up(&self) -> bool {
        self.hung_up.load(Ordering::Relaxed)
    }

    /// Passes bytes from the guest on, straight out of its memory as far as the socket takes them.
    ///
    /// # Errors
    /// When they are more than the guest was granted.
    pub fn deliver(&self, out: &mut Outbound, mut payload: Buffers) -> Result<(), Fault> {
        let len = payload.len();
        let room = usize::try_from(self.room).unwrap_or(usize::MAX);
        let free = room.saturating_sub(out.rest.len());
        if len > free {
            return Err(Fault::BeyondCredit(len - free));
        }
        if out.rest.is_empty() && !out.deaf {
            let sent = out.outcome(retry(|| sys::send(&self.socket, &payload)));
            payload.advance(sent);
            self.forward(sent);
        }
        if out.deaf {
            self.forward(payload.len());
        } else if !payload.is_empty() {
            let mut left = vec![0; payload.len()];
            // Short only where there are fewer bytes than there are.
            let _ = payload.read(&mut left);
            out.rest.reserve_exact(left.len());
            out.rest.extend(left);
        }
        Ok(())
    }

    /// Passes on what the socket had no room for.
    pub fn flush(&self, out: &mut Outbound) {
        while !out.rest.is_empty() && !out.deaf {
            let (front, _) = out.rest.as_slices();
            let sent = retry(|| (&self.socket).write(front));
            let sent = out.outcome(sent);
            if sent == 0 {
                break;
            }
            out.rest.drain(..sent);
            self.forward(sent);
        }
        if out.deaf {
            self.forward(out.rest.len());
            out.rest.clear();
        }
        if out.rest.is_empty() {
            out.rest = VecDeque::new();
        }
    }

    fn forward(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.forwarded.fetch_add(count, Ordering::AcqRel);
    }

    /// Closes the socket for both sides. Bytes of the program's that nobody wants any more are taken out
    /// first: what it still has to read would else end for it with ECONNRESET.
    pub fn close(&self) {
        const MOST: usize = 1 << 20;
        let mut inbound = self.inbound();
        (inbound.open, inbound.ended) = (false, true);
        let _ = self.socket.shutdown(Shutdown::Both);
        let mut bytes = [0; 16 << 10];
        let mut taken = 0;
        while let Ok(count @ 1..) = (&self.socket).read(&mut bytes) {
            taken += count;
            if taken > MOST {
                break;
            }
        }
    }
}

impl Outbound {
    /// How many bytes wait for the socket.
    pub fn behind(&self) -> usize {
        self.rest.len()
    }

    /// How many bytes went.
    fn outcome(&mut self, sent: io::Result<usize>) -> usize {
        match sent {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.deaf = true;
                0
            }
        }
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
