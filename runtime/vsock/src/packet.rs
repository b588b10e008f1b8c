//! Packets on the rings (virtio 1.2, 5.10.6): pure, no I/O.

use thiserror::Error;

/// The host's context id (virtio 1.2, 5.10.4).
pub const HOST_CID: u64 = 2;
/// Bytes of `struct virtio_vsock_hdr`.
pub const HEADER: usize = 44;
/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub const STREAM: u16 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender of the packet receives no more.
pub const RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: it sends no more.
pub const SEND: u32 = 2;
/// It does neither.
pub const BOTH: u32 = RECEIVE | SEND;

/// `struct virtio_vsock_hdr`, as it stands there.
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
    /// Bytes of payload that follow.
    pub len: u32,
    /// The socket's type.
    pub kind: u16,
    /// What the packet is about: see [`Op`].
    pub op: u16,
    /// Flags of the operation.
    pub flags: u32,
    /// The sender's buffer for this connection, in bytes.
    pub buf_alloc: u32,
    /// How many bytes have left that buffer, ever, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// As it goes over the ring.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.src_cid.to_le_bytes());
        put(&self.dst_cid.to_le_bytes());
        put(&self.src_port.to_le_bytes());
        put(&self.dst_port.to_le_bytes());
        put(&self.len.to_le_bytes());
        put(&self.kind.to_le_bytes());
        put(&self.op.to_le_bytes());
        put(&self.flags.to_le_bytes());
        put(&self.buf_alloc.to_le_bytes());
        put(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// From the ring.
    pub fn from_bytes(bytes: &[u8; HEADER]) -> Self {
        let mut fields = Fields(bytes);
        Self {
            src_cid: u64::from_le_bytes(fields.next()),
            dst_cid: u64::from_le_bytes(fields.next()),
            src_port: u32::from_le_bytes(fields.next()),
            dst_port: u32::from_le_bytes(fields.next()),
            len: u32::from_le_bytes(fields.next()),
            kind: u16::from_le_bytes(fields.next()),
            op: u16::from_le_bytes(fields.next()),
            flags: u32::from_le_bytes(fields.next()),
            buf_alloc: u32::from_le_bytes(fields.next()),
            fwd_cnt: u32::from_le_bytes(fields.next()),
        }
    }

    /// The connection between these ports of the guest and the host, if that is what it names.
    pub fn connection(&self) -> Option<Key> {
        (self.dst_cid == HOST_CID && self.kind == STREAM).then_some(Key {
            host_port: self.dst_port,
            guest_port: self.src_port,
        })
    }

    /// The reset that answers this packet.
    #[must_use]
    pub fn reset(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: Op::Reset as u16,
            ..Self::default()
        }
    }
}

/// Fixed fields one behind the other; together they are as long as the header.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        if let Some((front, rest)) = self.0.split_first_chunk::<N>() {
            field = *front;
            self.0 = rest;
        }
        field
    }
}

/// What a packet is about (`enum virtio_vsock_op`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Op {
    /// Wants a connection.
    Request = 1,
    /// Grants it.
    Response = 2,
    /// Refuses or ends it.
    Reset = 3,
    /// Will send or receive no more.
    Shutdown = 4,
    /// Carries bytes.
    Data = 5,
    /// Tells of room.
    CreditUpdate = 6,
    /// Asks for that.
    CreditRequest = 7,
}

impl Op {
    const ALL: [Self; 7] = [
        Self::Request,
        Self::Response,
        Self::Reset,
        Self::Shutdown,
        Self::Data,
        Self::CreditUpdate,
        Self::CreditRequest,
    ];

    fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|op| *op as u16 == number)
    }
}

/// What a connection is known by: there is one host and one guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The host's port.
    pub host_port: u32,
    /// The guest's port.
    pub guest_port: u32,
}

/// How much its receiver can take of one direction of a connection (virtio 1.2, 5.10.6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// The receiver's buffer in bytes.
    pub buf_alloc: u32,
    /// Bytes that have left it, ever, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Credit {
    /// How many bytes may be sent by who has sent `sent` bytes ever, modulo 2^32. None if the receiver
    /// contradicts itself: it has shrunk its buffer, or forwarded what it never got.
    pub fn left(self, sent: u32) -> u32 {
        let under_way = sent.wrapping_sub(self.fwd_cnt);
        self.buf_alloc.saturating_sub(under_way)
    }
}

/// A packet from the guest that makes sense by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its connection.
    pub key: Key,
    /// What it is about.
    pub op: Op,
    /// Flags of the operation.
    pub flags: u32,
    /// Bytes of payload.
    pub len: usize,
    /// The guest's room.
    pub credit: Credit,
}

/// What is wrong with a packet of the guest's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// No header.
    #[error("a packet shorter than its header")]
    TooShort,
    /// A buffer to write to.
    #[error("a packet to send in a buffer that the device is to write")]
    Writable,
    /// Not the guest's address.
    #[error("a packet from context id {0}, which is not the guest's")]
    Source(u64),
    /// Nobody's address.
    #[error("a packet to context id {0}: there is only the host, 2")]
    Destination(u64),
    /// Not a stream.
    #[error("a packet of type {0}: there are only streams, 1")]
    Type(u16),
    /// Not an operation.
    #[error("a packet of unknown operation {0}")]
    Operation(u16),
    /// More than there is.
    #[error("a packet of {len} bytes in a buffer of {room}")]
    Length {
        /// As the header says.
        len: u32,
        /// Bytes behind the header.
        room: usize,
    },
    /// More than the buffer for the connection holds.
    #[error("{0} bytes more than the connection's credit")]
    BeyondCredit(usize),
    /// Not now.
    #[error("{0:?} is not what the connection's state allows")]
    OutOfPlace(Op),
}

impl Fault {
    /// Whether the sender is told by a reset.
    pub fn is_answered(self) -> bool {
        !matches!(self, Self::TooShort | Self::Writable | Self::Source(_))
    }
}

impl Packet {
    /// Checks a packet from the guest `guest_cid` with `room` bytes behind its header.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn parse(header: &Header, guest_cid: u64, room: usize) -> Result<Self, Fault> {
        if header.src_cid != guest_cid {
            return Err(Fault::Source(header.src_cid));
        }
        if header.dst_cid != HOST_CID {
            return Err(Fault::Destination(header.dst_cid));
        }
        if header.kind != STREAM {
            return Err(Fault::Type(header.kind));
        }
        let op = Op::of(header.op).ok_or(Fault::Operation(header.op))?;
        let len = header.len;
        let fits = usize::try_from(len).ok().filter(|len| *len <= room);
        Ok(Self {
            key: Key {
                host_port: header.dst_port,
                guest_port: header.src_port,
            },
            op,
            flags: header.flags,
            len: fits.ok_or(Fault::Length { len, room })?,
            credit: Credit {
                buf_alloc: header.buf_alloc,
                fwd_cnt: header.fwd_cnt,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> impl Strategy<Value = Header> {
        any::<[u8; HEADER]>().prop_map(|bytes| Header::from_bytes(&bytes))
    }

    proptest! {
        #[test]
        fn a_header_is_its_bytes(bytes: [u8; HEADER]) {
            prop_assert_eq!(Header::from_bytes(&bytes).to_bytes(), bytes);
        }

        #[test]
        fn no_packet_reaches_beyond_its_buffer(mut header in header(), room in 0_usize..100_000) {
            (header.src_cid, header.dst_cid, header.kind) = (3, HOST_CID, STREAM);
            header.op %= 9;
            match Packet::parse(&header, 3, room) {
                Ok(packet) => {
                    prop_assert!(packet.len <= room);
                    prop_assert_eq!(packet.op as u16, header.op);
                }
                Err(Fault::Operation(op)) => prop_assert!(op == 0 || op == 8),
                Err(Fault::Length { len, .. }) => prop_assert!(len as usize > room),
                Err(other) => prop_assert!(false, "{other}"),
            }
        }

        #[test]
        fn credit_never_exceeds_the_buffer(buf_alloc: u32, fwd_cnt: u32, under_way in 0_u32..1 << 20) {
            let credit = Credit { buf_alloc, fwd_cnt };
            let left = credit.left(fwd_cnt.wrapping_add(under_way));
            prop_assert_eq!(left, buf_alloc.saturating_sub(under_way));
        }
    }

    #[test]
    fn the_fields_lie_where_the_specification_says() {
        let header = Header {
            src_cid: 3,
            dst_cid: HOST_CID,
            src_port: 0x0102_0304,
            dst_port: 5,
            len: 6,
            kind: STREAM,
            op: Op::Data as u16,
            flags: 7,
            buf_alloc: 8,
            fwd_cnt: 9,
        };
        let bytes = header.to_bytes();
        assert_eq!((bytes[0], bytes[8], bytes[20], bytes[24]), (3, 2, 5, 6));
        assert_eq!(bytes[16..20], [4, 3, 2, 1]);
        assert_eq!((bytes[28], bytes[30], bytes[32]), (1, 5, 7));
        assert_eq!((bytes[36], bytes[40]), (8, 9));
    }

    #[test]
    fn wrong_addresses_types_and_operations_are_told_apart() {
        let good = Header {
            src_cid: 3,
            dst_cid: HOST_CID,
            kind: STREAM,
            op: 5,
            ..Header::default()
        };
        let parse = |header: Header| Packet::parse(&header, 3, 0).map(|packet| packet.op);
        assert_eq!(parse(good), Ok(Op::Data));
        assert_eq!(parse(Header { src_cid: 4, ..good }), Err(Fault::Source(4)));
        assert_eq!(
            parse(Header { dst_cid: 1, ..good }),
            Err(Fault::Destination(1))
        );
        assert_eq!(parse(Header { kind: 2, ..good }), Err(Fault::Type(2)));
        assert_eq!(parse(Header { op: 0, ..good }), Err(Fault::Operation(0)));
        let room = 0;
        assert_eq!(
            parse(Header { len: 1, ..good }),
            Err(Fault::Length { len: 1, room })
        );
    }
}
