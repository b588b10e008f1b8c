//! Cutting a frame into segments, as a network card with TSO or USO does.

use super::{Contradiction, FrameHeader, Gso, checksum};

/// Ethernet's header, and what a VLAN tag adds.
const ETHERNET: usize = 14;
const TAG: usize = 4;
/// FIN and PSH belong to the last segment only, CWR to the first (RFC 793, RFC 3168).
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Where a frame's headers are.
struct Layout {
    ip: usize,
    transport: usize,
    payload: usize,
    v6: bool,
}

/// Cuts `frame`; `each` gets the headers and the payload of each segment, until it says `false`.
pub(super) fn cut(
    gso: Gso,
    header: FrameHeader,
    frame: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), Contradiction> {
    let layout = layout(gso, header, frame).ok_or(Contradiction)?;
    let (headers, payload) = frame.split_at(layout.payload);
    let mut headers = headers.to_vec();
    let original = headers.clone();
    let count = payload.len().div_ceil(header.gso_size);
    for (index, part) in payload.chunks(header.gso_size).enumerate() {
        headers.copy_from_slice(&original);
        let place = Place {
            index,
            last: index + 1 == count,
            before: index * header.gso_size,
        };
        patch(gso, &layout, &mut headers, part, place).ok_or(Contradiction)?;
        if !each(&headers, part) {
            break;
        }
    }
    Ok(())
}

/// Which segment it is, and how much payload is before it.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    last: bool,
    before: usize,
}

fn layout(gso: Gso, header: FrameHeader, frame: &[u8]) -> Option<Layout> {
    let kind = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let (ip, kind) = match kind(ETHERNET - 2)? {
        0x8100 | 0x88a8 => (ETHERNET + TAG, kind(ETHERNET + TAG - 2)?),
        kind => (ETHERNET, kind),
    };
    let v6 = kind == 0x86dd;
    let transport = header.csum_start;
    let fits = match gso {
        Gso::Tcp4 => kind == 0x0800,
        Gso::Tcp6 => v6,
        Gso::Udp => v6 || kind == 0x0800,
    };
    let ip_len = transport.checked_sub(ip)?;
    if !fits || ip_len < if v6 { 40 } else { 20 } {
        return None;
    }
    let transport_len = match gso {
        Gso::Udp => 8,
        _ => usize::from(*frame.get(transport + 12)? >> 4) * 4,
    };
    let least = if gso == Gso::Udp { 8 } else { 20 };
    let payload = transport + transport_len;
    (transport_len >= least && payload < frame.len()).then_some(Layout {
        ip,
        transport,
        payload,
        v6,
    })
}

fn patch(
    gso: Gso,
    layout: &Layout,
    headers: &mut [u8],
    payload: &[u8],
    place: Place,
) -> Option<()> {
    let len = headers.len() - layout.ip + payload.len();
    let (before_transport, transport) = headers.split_at_mut_checked(layout.transport)?;
    let ip = before_transport.get_mut(layout.ip..)?;
    if layout.v6 {
        let behind = u16::try_from(len - 40).ok()?;
        ip.get_mut(4..6)?.copy_from_slice(&behind.to_be_bytes());
    } else {
        patch_v4(ip, len, place)?;
    }
    let at = match gso {
        Gso::Udp => {
            let len = u16::try_from(8 + payload.len()).ok()?;
            transport.get_mut(4..6)?.copy_from_slice(&len.to_be_bytes());
            6
        }
        _ => {
            patch_tcp(transport, place)?;
            16
        }
    };
    transport.get_mut(at..at + 2)?.fill(0);
    let addresses = match layout.v6 {
        true => ip.get(8..40)?,
        false => ip.get(12..20)?,
    };
    let protocol = if gso == Gso::Udp { 17 } else { 6 };
    let covered = transport.len() + payload.len();
    let sum = checksum::sum(addresses, protocol + covered as u64);
    // Transport headers have an even length.
    let sum = checksum::finish(checksum::sum(payload, checksum::sum(transport, sum)));
    let sum = match gso {
        Gso::Udp => checksum::never_zero(sum),
        _ => sum,
    };
    transport
        .get_mut(at..at + 2)?
        .copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Length, identification and checksum (RFC 791).
fn patch_v4(ip: &mut [u8], len: usize, place: Place) -> Option<()> {
    let len = u16::try_from(len).ok()?;
    ip.get_mut(2..4)?.copy_from_slice(&len.to_be_bytes());
    let first = u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?]);
    let index = u16::try_from(place.index).unwrap_or(u16::MAX);
    let id = first.wrapping_add(index);
    ip.get_mut(4..6)?.copy_from_slice(&id.to_be_bytes());
    ip.get_mut(10..12)?.fill(0);
    let sum = checksum::finish(checksum::sum(ip, 0));
    ip.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Sequence number and flags (RFC 793).
fn patch_tcp(tcp: &mut [u8], place: Place) -> Option<()> {
    let first = u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?);
    let sequence = first.wrapping_add(u32::try_from(place.before).ok()?);
    tcp.get_mut(4..8)?.copy_from_slice(&sequence.to_be_bytes());
    let flags = tcp.get_mut(13)?;
    if !place.last {
        *flags &= !FIN_PSH;
    }
    if place.index > 0 {
        *flags &= !CWR;
    }
    Some(())
}
