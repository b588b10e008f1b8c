//! Frames: Ethernet, IPv4, and UDP or TCP.

use lab::frontend::net::Header;

pub const PLAIN: Header = Header {
    flags: 0,
    gso_type: 0,
    hdr_len: 0,
    gso_size: 0,
    csum_start: 0,
    csum_offset: 0,
    num_buffers: 0,
};
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
pub const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
pub const GSO_TCPV4: u8 = 1;
/// Ethernet and IPv4 headers.
pub const TRANSPORT: usize = 14 + 20;
const UDP: u8 = 17;
const TCP: u8 = 6;
const SOURCE: [u8; 4] = [10, 9, 0, 2];
const DESTINATION: [u8; 4] = [10, 9, 0, 1];

/// The one's complement sum that IP, UDP and TCP use (RFC 1071), not yet inverted.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default()));
    let mut sum = words.fold(u64::from(start), |sum, word| sum + u64::from(word));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

fn pseudo_header(protocol: u8, len: usize) -> u16 {
    let len = u16::try_from(len).unwrap().to_be_bytes();
    let bytes = [&SOURCE[..], &DESTINATION, &[0, protocol], &len].concat();
    sum(&bytes, 0)
}

/// `transport` behind broadcast Ethernet and IPv4 headers.
fn packet(protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([0x52, 0x54, 0, 0, 0, 2, 8, 0]);
    let len = u16::try_from(20 + transport.len()).unwrap().to_be_bytes();
    let mut ip = [0x45, 0, len[0], len[1], 0, 1, 0x40, 0, 64, protocol, 0, 0].to_vec();
    ip.extend(SOURCE);
    ip.extend(DESTINATION);
    let checksum = (!sum(&ip, 0)).to_be_bytes();
    ip[10..12].copy_from_slice(&checksum);
    frame.extend(ip);
    frame.extend(transport);
    frame
}

/// A datagram to `port`, complete.
pub fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = udp_unfinished(port, payload).1;
    let checksum = (!sum(&frame[TRANSPORT..], 0)).to_be_bytes();
    frame[TRANSPORT + 6..TRANSPORT + 8].copy_from_slice(&checksum);
    frame
}

/// A datagram whose checksum covers the pseudo header only, and the header that says so.
pub fn udp_unfinished(port: u16, payload: &[u8]) -> (Header, Vec<u8>) {
    let len = 8 + payload.len();
    let mut datagram = 9_u16.to_be_bytes().to_vec();
    datagram.extend(port.to_be_bytes());
    datagram.extend(u16::try_from(len).unwrap().to_be_bytes());
    datagram.extend(pseudo_header(UDP, len).to_be_bytes());
    datagram.extend(payload);
    let header = Header {
        flags: NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 6,
        ..PLAIN
    };
    (header, packet(UDP, &datagram))
}

/// A TCP segment of any size to be cut into pieces of `mss` bytes, and the header that says so.
pub fn tcp_unsegmented(port: u16, mss: u16, payload: &[u8]) -> (Header, Vec<u8>) {
    let mut segment = 9_u16.to_be_bytes().to_vec();
    segment.extend(port.to_be_bytes());
    segment.extend(1000_u32.to_be_bytes());
    segment.extend(1_u32.to_be_bytes());
    // Header of five words; ACK.
    segment.extend([0x50, 0x10, 0xff, 0xff]);
    segment.extend(pseudo_header(TCP, 20 + payload.len()).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    let header = Header {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54,
        gso_size: mss,
        csum_start: 34,
        csum_offset: 16,
        ..PLAIN
    };
    (header, packet(TCP, &segment))
}

fn protocol(frame: &[u8]) -> Option<u8> {
    (frame.get(12..14)? == [8, 0]).then(|| frame.get(23).copied())?
}

fn port_of(frame: &[u8], wanted: u8) -> Option<u16> {
    if protocol(frame)? != wanted {
        return None;
    }
    let port = frame.get(TRANSPORT + 2..TRANSPORT + 4)?;
    Some(u16::from_be_bytes(port.try_into().ok()?))
}

pub fn udp_port(frame: &[u8]) -> Option<u16> {
    port_of(frame, UDP)
}

pub fn udp_payload(frame: &[u8]) -> &[u8] {
    &frame[TRANSPORT + 8..end(frame)]
}

/// Offset in the stream, payload.
pub fn tcp_payload(frame: &[u8], port: u16) -> Option<(usize, &[u8])> {
    if port_of(frame, TCP)? != port {
        return None;
    }
    let sequence = frame.get(TRANSPORT + 4..TRANSPORT + 8)?;
    let offset = u32::from_be_bytes(sequence.try_into().ok()?) - 1000;
    Some((offset as usize, &frame[TRANSPORT + 20..end(frame)]))
}

fn end(frame: &[u8]) -> usize {
    14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]))
}

/// Whether the transport header's checksum is right.
pub fn checksum_holds(frame: &[u8]) -> bool {
    let transport = &frame[TRANSPORT..end(frame)];
    let pseudo = pseudo_header(protocol(frame).unwrap(), transport.len());
    sum(transport, u32::from(pseudo)) == 0xffff
}
