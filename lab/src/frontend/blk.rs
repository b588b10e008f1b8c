//! A virtio-blk driver (virtio 1.2, 5.2).

use std::time::Duration;

use virtio_bindings::virtio_blk;

use super::{DriverQueue, Error, Exchange, Reply, Result, Ticket};

/// Bytes of a sector, the unit of every address and length in requests (virtio 1.2, 5.2.4).
pub const SECTOR: u64 = 512;

/// The request's type (virtio 1.2, 5.2.6).
pub mod kind {
    use super::virtio_blk;

    /// Read.
    pub const IN: u32 = virtio_blk::VIRTIO_BLK_T_IN;
    /// Write.
    pub const OUT: u32 = virtio_blk::VIRTIO_BLK_T_OUT;
    /// Make written data durable.
    pub const FLUSH: u32 = virtio_blk::VIRTIO_BLK_T_FLUSH;
    /// Read the device's serial.
    pub const GET_ID: u32 = virtio_blk::VIRTIO_BLK_T_GET_ID;
    /// Let the device forget a range.
    pub const DISCARD: u32 = virtio_blk::VIRTIO_BLK_T_DISCARD;
    /// Make a range read as zeros.
    pub const WRITE_ZEROES: u32 = virtio_blk::VIRTIO_BLK_T_WRITE_ZEROES;
}

/// The request's outcome (virtio 1.2, 5.2.6).
pub mod status {
    /// Done.
    pub const OK: u8 = 0;
    /// Failed.
    pub const IOERR: u8 = 1;
    /// The device does not know this type.
    pub const UNSUPP: u8 = 2;
}

/// `unmap` in the flags of a discard or write-zeroes segment (virtio 1.2, 5.2.6).
pub const UNMAP: u32 = 1;

/// One range of a discard or write-zeroes request (virtio 1.2, 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First sector.
    pub sector: u64,
    /// Number of sectors.
    pub sectors: u32,
    /// [`UNMAP`] or zero.
    pub flags: u32,
}

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// Nothing.
    None,
    /// Bytes for the device.
    ToDevice(&'a [u8]),
    /// Room for that many bytes from the device.
    FromDevice(usize),
}

/// A driver of one request queue of a block device.
#[derive(Debug)]
pub struct Blk {
    exchange: Exchange,
    segment: usize,
}

impl Blk {
    /// Takes over a queue.
    #[must_use]
    pub fn new(queue: DriverQueue) -> Self {
        Self {
            exchange: Exchange::new(queue),
            segment: usize::MAX,
        }
    }

    /// Cuts data into buffers of at most `len` bytes from now on.
    pub fn set_segment_len(&mut self, len: usize) {
        self.segment = len.max(1);
    }

    /// Reads `len` bytes from `sector` on: the status byte and the data.
    ///
    /// # Errors
    /// When the device does not complete the request.
    pub fn read(&mut self, sector: u64, len: usize) -> Result<(u8, Vec<u8>)> {
        self.request(kind::IN, sector, Data::FromDevice(len))
    }

    /// Writes from `sector` on: the status byte.
    ///
    /// # Errors
    /// When the device does not complete the request.
    pub fn write(&mut self, sector: u64, bytes: &[u8]) -> Result<u8> {
        Ok(self.request(kind::OUT, sector, Data::ToDevice(bytes))?.0)
    }

    /// Makes what was written durable: the status byte.
    ///
    /// # Errors
    /// When the device does not complete the request.
    pub fn flush(&mut self) -> Result<u8> {
        Ok(self.request(kind::FLUSH, 0, Data::None)?.0)
    }

    /// Discards ranges: the status byte.
    ///
    /// # Errors
    /// When the device does not complete the request.
    pub fn discard(&mut self, ranges: &[Range]) -> Result<u8> {
        Ok(self
            .request(kind::DISCARD, 0, Data::ToDevice(&range_bytes(ranges)))?
            .0)
    }

    /// Makes ranges read as zeros: the status byte.
    ///
    /// # Errors
    /// When the device does not complete the request.
    pub fn write_zeroes(&mut self, ranges: &[Range]) -> Result<u8> {
        Ok(self
            .request(kind::WRITE_ZEROES, 0, Data::ToDevice(&range_bytes(ranges)))?
            .0)
    }

    /// Reads the device's serial: the status byte and 20 bytes, padded with zeros.
    ///
    /// # Errors
    /// When the device does not complete the request.
    pub fn get_id(&mut self) -> Result<(u8, Vec<u8>)> {
        let len = virtio_blk::VIRTIO_BLK_ID_BYTES as usize;
        self.request(kind::GET_ID, 0, Data::FromDevice(len))
    }

    /// Any request, awaited: the status byte and what was read.
    ///
    /// # Errors
    /// When the device does not complete the request.
    pub fn request(&mut self, kind: u32, sector: u64, data: Data<'_>) -> Result<(u8, Vec<u8>)> {
        let ticket = self.submit(kind, sector, data)?;
        self.wait(ticket)
    }

    /// Sends a request without awaiting it.
    ///
    /// # Errors
    /// When guest memory or the ring is full.
    pub fn submit(&mut self, kind: u32, sector: u64, data: Data<'_>) -> Result<Ticket> {
        let ticket = self.stage(kind, sector, data)?;
        self.exchange.kick()?;
        Ok(ticket)
    }

    /// Prepares a request; [`kick`](Self::kick) sends all that are prepared as one batch.
    ///
    /// # Errors
    /// When guest memory or the ring is full.
    pub fn stage(&mut self, kind: u32, sector: u64, data: Data<'_>) -> Result<Ticket> {
        let header = header(kind, sector);
        let (mut readable, mut writable) = (vec![&header[..]], Vec::new());
        match data {
            Data::None => {}
            Data::ToDevice(bytes) => readable.extend(bytes.chunks(self.segment)),
            Data::FromDevice(len) => writable = cut(len, self.segment),
        }
        writable.push(1);
        self.exchange.stage(&readable, &writable)
    }

    /// Sends what [`stage`](Self::stage) prepared. Returns whether the device wanted a kick.
    ///
    /// # Errors
    /// When the eventfd cannot be written.
    pub fn kick(&mut self) -> Result<bool> {
        self.exchange.kick()
    }

    /// Awaits one request: the status byte and what was read.
    ///
    /// # Errors
    /// When the device does not complete the request.
    pub fn wait(&mut self, ticket: Ticket) -> Result<(u8, Vec<u8>)> {
        let reply = self.exchange.wait(ticket)?;
        self.outcome(reply)
    }

    /// Awaits whichever requests are done first, for at most `timeout`.
    ///
    /// # Errors
    /// When the device breaks the rules of the ring.
    pub fn wait_any(&mut self, timeout: Duration) -> Result<Vec<(Ticket, u8, Vec<u8>)>> {
        let replies = self.exchange.wait_any(timeout)?;
        let outcome = |(ticket, reply)| {
            let (status, data) = self.outcome(reply)?;
            Ok((ticket, status, data))
        };
        replies.into_iter().map(outcome).collect()
    }

    fn outcome(&self, mut reply: Reply) -> Result<(u8, Vec<u8>)> {
        let status = reply.buffers.pop().and_then(|bytes| bytes.first().copied());
        let Some(status) = status else {
            let why = "a request without a status byte".to_owned();
            return Err(Error::BadReply {
                queue: self.exchange.queue().index(),
                why,
            });
        };
        Ok((status, reply.buffers.concat()))
    }

    /// What the requests go through: in-flight count, indirect tables, time limit, queue.
    pub fn exchange(&mut self) -> &mut Exchange {
        &mut self.exchange
    }

    /// The queue, to tamper with or to attach to the next connection.
    pub fn queue_mut(&mut self) -> &mut DriverQueue {
        self.exchange.queue_mut()
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &DriverQueue {
        self.exchange.queue()
    }
}

/// The header of a request (virtio 1.2, 5.2.6): type, reserved, sector.
#[must_use]
pub fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

fn range_bytes(ranges: &[Range]) -> Vec<u8> {
    let bytes = |range: &Range| {
        let (sectors, flags) = (range.sectors.to_le_bytes(), range.flags.to_le_bytes());
        [&range.sector.to_le_bytes()[..], &sectors, &flags].concat()
    };
    ranges.iter().flat_map(bytes).collect()
}

fn cut(len: usize, segment: usize) -> Vec<usize> {
    let whole = len / segment;
    let rest = len % segment;
    std::iter::repeat_n(segment, whole)
        .chain((rest > 0).then_some(rest))
        .collect()
}
