//! Requests, parsed out of validated chains (virtio 1.2, 5.2.6). Nothing here does I/O.

use std::io::Write as _;

use thiserror::Error;
use vhost_daemon::queue::{Buffers, Chain};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_SECURE_ERASE, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

/// The unit of addresses and lengths, whatever the block size (virtio 1.2, 5.2.4).
pub const SECTOR: u64 = 512;

/// Most segments of a discard or write-zeroes request.
pub const MAX_SEGMENTS: u32 = 32;

/// Answer to a request, its last byte (virtio 1.2, 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// `VIRTIO_BLK_S_OK`
    Ok = 0,
    /// `VIRTIO_BLK_S_IOERR`
    IoError = 1,
    /// `VIRTIO_BLK_S_UNSUPP`
    Unsupported = 2,
}

/// What a request asks for. Offsets and lengths are in bytes and inside the disk.
#[derive(Debug)]
pub enum Request {
    /// Read `data.len()` bytes at `offset` into `data`.
    Read {
        /// Offset in bytes.
        offset: u64,
        /// Where to.
        data: Buffers,
    },
    /// Write `data` at `offset`.
    Write {
        /// Offset in bytes.
        offset: u64,
        /// What.
        data: Buffers,
    },
    /// Make what was written durable.
    Flush,
    /// The ranges hold nothing that is needed.
    Discard(Vec<Range>),
    /// The ranges are to read as zeroes.
    WriteZeroes(Vec<Range>),
    /// Tell the serial number.
    GetId(Buffers),
}

/// A range of the disk in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Start in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Whether the space may be given back to the host.
    pub unmap: bool,
}

/// Why a well-framed request is refused; its status byte says so to the guest.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// A type this device does not serve.
    #[error("request type {0} is not supported")]
    UnknownType(u32),
    /// Secure erase cannot be promised on an image file.
    #[error("secure erase is not supported")]
    SecureErase,
    /// Data that is no whole number of sectors.
    #[error("{0} bytes of data are not a whole number of sectors")]
    PartialSector(usize),
    /// A read or write without data.
    #[error("request without data")]
    NoData,
    /// Beyond the end of the disk.
    #[error("{sectors} sectors at sector {sector} are beyond the end of the disk")]
    BeyondEnd {
        /// First sector.
        sector: u64,
        /// Number of sectors.
        sectors: u64,
    },
    /// A write to a read-only disk.
    #[error("the disk is read-only")]
    ReadOnly,
    /// Segments that are malformed, too many, or with flags that are not allowed.
    #[error("malformed discard or write-zeroes segments")]
    BadSegments,
}

impl Refusal {
    /// The status byte for it.
    pub fn status(&self) -> Status {
        match self {
            Self::UnknownType(_) | Self::SecureErase | Self::BadSegments => Status::Unsupported,
            _ => Status::IoError,
        }
    }
}

/// A request cannot even be answered.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// Fewer than 16 readable bytes.
    #[error("request header of {0} bytes, 16 are needed")]
    ShortHeader(usize),
    /// No writable byte.
    #[error("request without room for its status")]
    NoStatus,
}

/// The one writable byte where a request's status goes, behind the writable data.
#[derive(Debug)]
pub struct StatusByte {
    byte: Buffers,
    data: usize,
}

impl StatusByte {
    /// Answers the request, the first `written` of whose writable data bytes were filled. Returns
    /// the used length: how many bytes were written without a gap (virtio 1.2, 2.7.8.2).
    pub fn write(mut self, status: Status, written: u32) -> u32 {
        // One byte of room is what this type stands for.
        let _ = self.byte.write(&[status as u8]);
        let gapless = usize::try_from(written).is_ok_and(|written| written == self.data);
        if gapless {
            written.saturating_add(1)
        } else {
            written
        }
    }
}

/// What the parser must know of the disk.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Capacity in bytes.
    pub capacity: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether discard is offered, and write-zeroes may give space back.
    pub can_discard: bool,
    /// Whether write-zeroes is offered.
    pub can_write_zeroes: bool,
}

/// `struct virtio_blk_req` up to the data: le32 type, le32 reserved, le64 sector.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Header {
    kind: u32,
    reserved: u32,
    sector: u64,
}

/// `struct virtio_blk_discard_write_zeroes`: le64 sector, le32 num_sectors, le32 flags.
const SEGMENT_BYTES: usize = 16;

/// Splits a chain into its request and the byte for its status. Framing is free: header, data and
/// status may share or split descriptors at will (virtio 1.2, 2.7.4.1 and 5.2.6).
///
/// # Errors
/// When the request cannot be answered with a status.
pub fn parse(
    mut chain: Chain,
    disk: &Disk,
) -> Result<(Result<Request, Refusal>, StatusByte), Malformed> {
    let readable = chain.readable.len();
    let header: [u8; 16] =
        read_array(&mut chain.readable).ok_or(Malformed::ShortHeader(readable))?;
    let status = chain.writable.split_back(1).ok_or(Malformed::NoStatus)?;
    let status = StatusByte {
        byte: status,
        data: chain.writable.len(),
    };
    Ok((Header::decode(&header).request(chain, disk), status))
}

fn read_array<const N: usize>(buffers: &mut Buffers) -> Option<[u8; N]> {
    let mut array = [0; N];
    if buffers.len() < N {
        return None;
    }
    buffers.peek(&mut array);
    buffers.advance(N);
    Some(array)
}

impl Header {
    fn decode(bytes: &[u8; 16]) -> Self {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            kind: word(0),
            reserved: word(4),
            sector: u64::from(word(8)) | u64::from(word(12)) << 32,
        }
    }

    fn request(&self, chain: Chain, disk: &Disk) -> Result<Request, Refusal> {
        match self.kind {
            VIRTIO_BLK_T_IN => {
                let offset = self.transfer(&chain.writable, disk)?;
                Ok(Request::Read {
                    offset,
                    data: chain.writable,
                })
            }
            VIRTIO_BLK_T_OUT => {
                writable(disk)?;
                let offset = self.transfer(&chain.readable, disk)?;
                Ok(Request::Write {
                    offset,
                    data: chain.readable,
                })
            }
            VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
            VIRTIO_BLK_T_GET_ID => Ok(Request::GetId(chain.writable)),
            VIRTIO_BLK_T_DISCARD if disk.can_discard => {
                let ranges = segments(chain.readable, disk)?;
                // virtio 1.2, 5.2.6.2: a discard must not carry the unmap flag.
                let flagged = ranges.iter().any(|range| range.unmap);
                if flagged {
                    Err(Refusal::BadSegments)
                } else {
                    Ok(Request::Discard(ranges))
                }
            }
            VIRTIO_BLK_T_WRITE_ZEROES if disk.can_write_zeroes => {
                let mut ranges = segments(chain.readable, disk)?;
                ranges
                    .iter_mut()
                    .for_each(|range| range.unmap &= disk.can_discard);
                Ok(Request::WriteZeroes(ranges))
            }
            VIRTIO_BLK_T_SECURE_ERASE => Err(Refusal::SecureErase),
            other => Err(Refusal::UnknownType(other)),
        }
    }

    /// The byte offset of a read or write of `data`, checked against the disk.
    fn transfer(&self, data: &Buffers, disk: &Disk) -> Result<u64, Refusal> {
        let len = data.len() as u64;
        if len == 0 {
            return Err(Refusal::NoData);
        }
        if !len.is_multiple_of(SECTOR) {
            return Err(Refusal::PartialSector(data.len()));
        }
        locate(self.sector, len / SECTOR, disk)
    }
}

fn writable(disk: &Disk) -> Result<(), Refusal> {
    if disk.read_only {
        Err(Refusal::ReadOnly)
    } else {
        Ok(())
    }
}

/// The byte offset of `sector` if `sectors` from there lie on the disk.
fn locate(sector: u64, sectors: u64, disk: &Disk) -> Result<u64, Refusal> {
    let end = sector
        .checked_add(sectors)
        .filter(|end| *end <= disk.capacity / SECTOR);
    end.map(|_| sector * SECTOR)
        .ok_or(Refusal::BeyondEnd { sector, sectors })
}

fn segments(mut data: Buffers, disk: &Disk) -> Result<Vec<Range>, Refusal> {
    writable(disk)?;
    let count = data.len() / SEGMENT_BYTES;
    if count == 0 || count > MAX_SEGMENTS as usize || !data.len().is_multiple_of(SEGMENT_BYTES) {
        return Err(Refusal::BadSegments);
    }
    let mut ranges = Vec::with_capacity(count);
    while let Some(bytes) = read_array::<SEGMENT_BYTES>(&mut data) {
        let Header {
            kind: low,
            reserved: high,
            sector: rest,
        } = Header::decode(&bytes);
        let sector = u64::from(low) | u64::from(high) << 32;
        let (sectors, flags) = (rest & u64::from(u32::MAX), rest >> 32);
        if flags & !u64::from(VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) != 0 {
            return Err(Refusal::BadSegments);
        }
        let offset = locate(sector, sectors, disk)?;
        if sectors > 0 {
            ranges.push(Range {
                offset,
                len: sectors * SECTOR,
                unmap: flags != 0,
            });
        }
    }
    Ok(ranges)
}

/// The disk's serial number: 20 bytes, padded with NUL (virtio 1.2, 5.2.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial([u8; 20]);

impl Serial {
    /// `None` if `text` has more than 20 bytes.
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= 20).then(|| Self::truncated(text))
    }

    /// The first 20 bytes of `text`.
    pub fn truncated(text: &str) -> Self {
        let mut bytes = [0; 20];
        let len = text.len().min(20);
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        Self(bytes)
    }

    /// The 20 bytes.
    pub fn bytes(&self) -> &[u8; 20] {
        &self.0
    }
}
