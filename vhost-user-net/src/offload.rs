//! Finishing frames in software: what a sender left undone and a receiver does not do.
//!
//! Only for networks without a kernel behind them: a tap's kernel does it by itself.

mod checksum;
mod segment;

use thiserror::Error;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4,
};

use crate::backend::Offloads;
use crate::header::{HeaderLen, MAX_FRAME};

/// The virtio header of a frame, checked against the frame's length (virtio 1.2, 5.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    needs_checksum: bool,
    gso: Option<Gso>,
    ecn: bool,
    gso_size: usize,
    csum_start: usize,
    csum_offset: usize,
}

/// How a frame has to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gso {
    Tcp4,
    Tcp6,
    Udp,
}

/// A frame whose header promises what it does not hold.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the frame is not what its header says")]
pub struct Contradiction;

/// The header of a frame that is finished.
const PLAIN: [u8; HeaderLen::Modern.bytes()] = [0; HeaderLen::Modern.bytes()];

impl FrameHeader {
    /// Reads the header that `bytes` begin with, for a frame of `frame_len` bytes behind it. `None` where
    /// it names a kind of segmentation that is not offered, or places outside of the frame.
    pub fn parse(bytes: &[u8], frame_len: usize) -> Option<Self> {
        let header: &[u8; HeaderLen::Legacy.bytes()] = bytes.first_chunk()?;
        let word = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let [flags, kind, ..] = *header;
        let ecn = u32::from(kind) & VIRTIO_NET_HDR_GSO_ECN != 0;
        let gso = match u32::from(kind) & !VIRTIO_NET_HDR_GSO_ECN {
            VIRTIO_NET_HDR_GSO_NONE => None,
            VIRTIO_NET_HDR_GSO_TCPV4 => Some(Gso::Tcp4),
            VIRTIO_NET_HDR_GSO_TCPV6 => Some(Gso::Tcp6),
            VIRTIO_NET_HDR_GSO_UDP_L4 => Some(Gso::Udp),
            _ => return None,
        };
        let parsed = Self {
            needs_checksum: u32::from(flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0,
            gso,
            ecn,
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        };
        let checksum_end = parsed.csum_start + parsed.csum_offset + 2;
        let sound = (!parsed.needs_checksum || checksum_end <= frame_len)
            && (gso.is_none() || (parsed.needs_checksum && parsed.gso_size > 0))
            && frame_len <= MAX_FRAME;
        sound.then_some(parsed)
    }

    /// What the frame's receiver has to be able to do.
    pub fn undone(self) -> Offloads {
        let checksum = match self.needs_checksum {
            true => Offloads::CHECKSUM,
            false => Offloads::NONE,
        };
        let ecn = match self.ecn {
            true => Offloads::TSO_ECN,
            false => Offloads::NONE,
        };
        checksum
            | match self.gso {
                None => Offloads::NONE,
                Some(Gso::Tcp4) => Offloads::TSO4 | ecn,
                Some(Gso::Tcp6) => Offloads::TSO6 | ecn,
                Some(Gso::Udp) => Offloads::USO,
            }
    }
}

/// Does what `header` says is undone of a frame, which begins with that header. `each` gets every
/// resulting frame, its new header, and its parts in order, until it says `false`: a guest can ask for
/// segments of a byte, and whoever has no room for them makes none.
///
/// # Errors
/// When the frame is not what its header says; none has been given then.
pub fn finish(
    header: FrameHeader,
    frame: &[u8],
    mut each: impl FnMut(&[u8; HeaderLen::Modern.bytes()], &[&[u8]]) -> bool,
) -> Result<(), Contradiction> {
    let frame = frame.get(PLAIN.len()..).ok_or(Contradiction)?;
    if let Some(gso) = header.gso {
        return segment::cut(gso, header, frame, |headers, payload| {
            each(&PLAIN, &[headers, payload])
        });
    }
    let mut whole = frame.to_vec();
    if header.needs_checksum {
        let at = header.csum_start + header.csum_offset;
        let covered = whole.get(header.csum_start..).ok_or(Contradiction)?;
        // The sender left the pseudo header's sum in the field itself (virtio 1.2, 5.1.6.2.1).
        let sum = checksum::never_zero(checksum::finish(checksum::sum(covered, 0)));
        let field = whole.get_mut(at..at + 2).ok_or(Contradiction)?;
        field.copy_from_slice(&sum.to_be_bytes());
    }
    each(&PLAIN, &[&whole]);
    Ok(())
}

#[cfg(test)]
mod tests;
