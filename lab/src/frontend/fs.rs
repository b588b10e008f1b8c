//! A virtio-fs driver that speaks raw FUSE (virtio 1.2, 5.11; linux/fuse.h).

use std::time::Duration;

use super::{DriverQueue, Error, Exchange, Reply, Result, Ticket};

/// Bytes of `struct fuse_in_header`.
pub const IN_HEADER_LEN: usize = 40;
/// Bytes of `struct fuse_out_header`.
pub const OUT_HEADER_LEN: usize = 16;
/// The same in the width of `fuse_in_header.len` and of a descriptor's length.
pub(crate) const IN_HEADER_BYTES: u32 = 40;
/// As [`IN_HEADER_BYTES`], of the reply's.
pub(crate) const OUT_HEADER_BYTES: u32 = 16;
/// The number of the first request queue; queue 0 is for urgent requests (virtio 1.2, 5.11.2).
pub const REQUEST_QUEUE: usize = 1;

/// Operation codes that the lab itself uses (`enum fuse_opcode`).
pub mod opcode {
    /// Look a name up.
    pub const LOOKUP: u32 = 1;
    /// Drop references; has no reply.
    pub const FORGET: u32 = 2;
    /// Read attributes.
    pub const GETATTR: u32 = 3;
    /// Start the session.
    pub const INIT: u32 = 26;
    /// The program that waits for a request was interrupted; has no reply of its own.
    pub const INTERRUPT: u32 = 36;
    /// End the session.
    pub const DESTROY: u32 = 38;
    /// Drop references to many; has no reply.
    pub const BATCH_FORGET: u32 = 42;
}

/// Who asks, and about which inode: the variable part of `struct fuse_in_header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The inode; 1 is the root.
    pub nodeid: u64,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id.
    pub pid: u32,
    /// Length of extensions behind the arguments, in units of 8 bytes.
    pub total_extlen: u16,
}

impl Caller {
    /// Root asks about an inode.
    #[must_use]
    pub fn root(nodeid: u64) -> Self {
        Self {
            nodeid,
            uid: 0,
            gid: 0,
            pid: 1,
            total_extlen: 0,
        }
    }
}

/// A reply as it is on the wire, header taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FuseReply {
    /// Zero or a negative errno.
    pub error: i32,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// The fixed part of a reply to INIT (`struct fuse_init_out`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InitReply {
    /// Protocol version, major.
    pub major: u32,
    /// Protocol version, minor.
    pub minor: u32,
    /// Read-ahead limit in bytes.
    pub max_readahead: u32,
    /// Agreed flags: `flags` below, `flags2` in the upper half.
    pub flags: u64,
    /// Largest write in bytes.
    pub max_write: u32,
    /// Largest request in pages.
    pub max_pages: u16,
}

/// A driver of one request queue of a file system device.
#[derive(Debug)]
pub struct Fs {
    exchange: Exchange,
    unique: u64,
    expected: std::collections::HashMap<Ticket, u64>,
}

impl Fs {
    /// Takes over a queue.
    #[must_use]
    pub fn new(queue: DriverQueue) -> Self {
        Self {
            exchange: Exchange::new(queue),
            unique: 0,
            expected: Default::default(),
        }
    }

    /// Starts the session as a kernel of FUSE 7.`minor` does. `flags` has `flags2` in its upper
    /// half and must contain FUSE_INIT_EXT (bit 30) for that to count.
    ///
    /// # Errors
    /// When the device does not answer, or answers with an error or too few bytes.
    pub fn init(&mut self, minor: u32, flags: u64) -> Result<InitReply> {
        let [lower, upper] = [flags & 0xffff_ffff, flags >> 32];
        let mut body = Vec::with_capacity(64);
        body.extend([7_u32, minor, 128 << 10].map(u32::to_le_bytes).concat());
        body.extend(&lower.to_le_bytes()[..4]);
        body.extend(&upper.to_le_bytes()[..4]);
        body.resize(64, 0);
        let reply = self.request(opcode::INIT, Caller::root(0), &[&body], 64)?;
        if reply.error != 0 {
            return Err(self.bad_reply(format!("INIT answered with error {}", reply.error)));
        }
        parse_init(&reply.body)
            .ok_or_else(|| self.bad_reply(format!("INIT answered {} bytes", reply.body.len())))
    }

    /// Sends a request of header and `body` parts and awaits the reply; `reply_len` is the room
    /// for what follows the reply's header. The body is as long as the reply says it is.
    ///
    /// # Errors
    /// When the device does not answer, or the reply's header is wrong.
    pub fn request(
        &mut self,
        opcode: u32,
        caller: Caller,
        body: &[&[u8]],
        reply_len: usize,
    ) -> Result<FuseReply> {
        let ticket = self.submit(opcode, caller, body, &[reply_len])?;
        self.wait(ticket)
    }

    /// Sends a request without awaiting it; the room for the reply's body is cut as `reply` says.
    ///
    /// # Errors
    /// When guest memory or the ring is full.
    pub fn submit(
        &mut self,
        opcode: u32,
        caller: Caller,
        body: &[&[u8]],
        reply: &[usize],
    ) -> Result<Ticket> {
        let len = IN_HEADER_LEN + body.iter().map(|part| part.len()).sum::<usize>();
        self.unique += 1;
        let header = header(super::exchange::length(len)?, opcode, self.unique, caller);
        let readable: Vec<&[u8]> = [&header[..]]
            .into_iter()
            .chain(body.iter().copied())
            .collect();
        let writable: Vec<usize> = [OUT_HEADER_LEN].iter().chain(reply).copied().collect();
        let ticket = self.exchange.submit(&readable, &writable)?;
        self.expected.insert(ticket, self.unique);
        Ok(ticket)
    }

    /// The number of the request sent last (`fuse_in_header.unique`).
    #[must_use]
    pub fn last_unique(&self) -> u64 {
        self.unique
    }

    /// Sends a request that has no reply (FORGET, BATCH_FORGET) and awaits its buffers.
    ///
    /// # Errors
    /// When the device does not hand the chain back.
    pub fn notify(&mut self, opcode: u32, caller: Caller, body: &[u8]) -> Result<()> {
        let len = super::exchange::length(IN_HEADER_LEN + body.len())?;
        self.unique += 1;
        let header = header(len, opcode, self.unique, caller);
        let ticket = self.exchange.submit(&[&header, body], &[])?;
        self.exchange.wait(ticket).map(drop)
    }

    /// Sends bytes as they are, without a header of ours: wrong lengths, unknown operations.
    /// Returns the writable buffers after the device handed the chain back.
    ///
    /// # Errors
    /// When the device does not hand the chain back.
    pub fn raw(&mut self, readable: &[&[u8]], writable: &[usize]) -> Result<Reply> {
        let ticket = self.exchange.submit(readable, writable)?;
        self.exchange.wait(ticket)
    }

    /// Awaits the reply to one request.
    ///
    /// # Errors
    /// When the device does not answer, or the reply's header is wrong.
    pub fn wait(&mut self, ticket: Ticket) -> Result<FuseReply> {
        let reply = self.exchange.wait(ticket)?;
        self.parse(ticket, &reply)
    }

    /// Awaits whichever requests are done first, for at most `timeout`.
    ///
    /// # Errors
    /// When the device breaks the rules of the ring, or a reply's header is wrong.
    pub fn wait_any(&mut self, timeout: Duration) -> Result<Vec<(Ticket, FuseReply)>> {
        let replies = self.exchange.wait_any(timeout)?;
        let parsed = |(ticket, reply): (Ticket, Reply)| Ok((ticket, self.parse(ticket, &reply)?));
        replies.into_iter().map(parsed).collect()
    }

    fn parse(&mut self, ticket: Ticket, reply: &Reply) -> Result<FuseReply> {
        let bytes = reply.buffers.concat();
        let (len, error, unique) = (u32_at(&bytes, 0), u32_at(&bytes, 4), u64_at(&bytes, 8));
        let (Some(len), Some(error), Some(unique)) = (len, error, unique) else {
            return Err(self.bad_reply(format!("{} bytes hold no header", bytes.len())));
        };
        let body = usize::try_from(len)
            .ok()
            .and_then(|len| bytes.get(OUT_HEADER_LEN..len));
        let Some(body) = body else {
            return Err(self.bad_reply(format!("length {len} in {} bytes", bytes.len())));
        };
        if reply.used_len != len {
            let used = reply.used_len;
            return Err(self.bad_reply(format!("length {len}, but {used} in the used ring")));
        }
        if self.expected.remove(&ticket) != Some(unique) {
            return Err(self.bad_reply(format!("reply to request {unique}, which was not asked")));
        }
        Ok(FuseReply {
            error: error.cast_signed(),
            body: body.to_vec(),
        })
    }

    fn bad_reply(&self, why: String) -> Error {
        Error::BadReply {
            queue: self.exchange.queue().index(),
            why,
        }
    }

    /// What the requests go through: in-flight count, indirect tables, time limit, queue.
    pub fn exchange(&mut self) -> &mut Exchange {
        &mut self.exchange
    }

    /// The queue, to tamper with or to attach to the next connection.
    pub fn queue_mut(&mut self) -> &mut DriverQueue {
        self.exchange.queue_mut()
    }
}

/// `struct fuse_in_header` with any values.
#[must_use]
pub fn header(len: u32, opcode: u32, unique: u64, caller: Caller) -> [u8; IN_HEADER_LEN] {
    let mut bytes = [0; IN_HEADER_LEN];
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes[4..8].copy_from_slice(&opcode.to_le_bytes());
    bytes[8..16].copy_from_slice(&unique.to_le_bytes());
    bytes[16..24].copy_from_slice(&caller.nodeid.to_le_bytes());
    bytes[24..28].copy_from_slice(&caller.uid.to_le_bytes());
    bytes[28..32].copy_from_slice(&caller.gid.to_le_bytes());
    bytes[32..36].copy_from_slice(&caller.pid.to_le_bytes());
    bytes[36..38].copy_from_slice(&caller.total_extlen.to_le_bytes());
    bytes
}

pub(crate) fn parse_init(body: &[u8]) -> Option<InitReply> {
    Some(InitReply {
        major: u32_at(body, 0)?,
        minor: u32_at(body, 4)?,
        max_readahead: u32_at(body, 8)?,
        flags: u64::from(u32_at(body, 12)?) | u64::from(u32_at(body, 32).unwrap_or(0)) << 32,
        max_write: u32_at(body, 20)?,
        max_pages: u16::from_le_bytes(body.get(28..30)?.try_into().ok()?),
    })
}

/// A little-endian u32 in a reply's body.
#[must_use]
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(offset..offset + 4)?.try_into().ok()?,
    ))
}

/// A little-endian u64 in a reply's body.
#[must_use]
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(
        bytes.get(offset..offset + 8)?.try_into().ok()?,
    ))
}
