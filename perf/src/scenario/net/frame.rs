//! The frames of the loads, each behind its virtio header (virtio 1.2, 5.1.6).

use lab::frontend::net::{HEADER_LEN, Header};

use super::workload::{Direction, Workload};

/// The guest's address on each tap.
pub(super) const GUEST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// Nobody's: the kernel drops frames to it as early as it can.
const NOBODY: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];
/// What the run gives each tap of its own.
pub(super) const TAP_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Where an echo carries its number: behind Ethernet, IPv4, and type, code, checksum and id of ICMP.
pub(super) const SEQUENCE: u64 = HEADER_LEN as u64 + 14 + 20 + 6;

const ICMP: u8 = 1;
const TCP: u8 = 6;
/// IPv4 and TCP headers.
const TCP_HEADERS: usize = 40;

/// The tap with that number's network, `192.0.2.0/24` cut into pieces of four.
pub(super) fn address(tap: u8, guest: bool) -> [u8; 4] {
    [192, 0, 2, 4 * tap + 1 + u8::from(guest)]
}

/// A frame of the load with its header, with `number` in it, through tap `tap`.
pub(super) fn frame(workload: Workload, number: u16, tap: u8) -> Vec<u8> {
    let (source, destination) = match workload.direction {
        Direction::Tx => (GUEST_MAC, NOBODY),
        Direction::Rx => (NOBODY, GUEST_MAC),
        Direction::Echo => (GUEST_MAC, TAP_MAC),
    };
    between(workload, number, tap, source, destination)
}

/// The same between two stations.
pub(super) fn between(
    workload: Workload,
    number: u16,
    tap: u8,
    source: [u8; 6],
    destination: [u8; 6],
) -> Vec<u8> {
    let mut bytes = header(workload).to_bytes().to_vec();
    bytes.extend(destination);
    bytes.extend(source);
    bytes.extend([0x08, 0x00]);
    let protocol = match workload.direction {
        Direction::Echo => ICMP,
        _ => TCP,
    };
    let packet = workload.bytes - 14;
    bytes.extend(ip_header(packet, protocol, tap));
    let payload = bytes.len();
    bytes.resize(HEADER_LEN + workload.bytes, 0);
    if let Some(payload) = bytes.get_mut(payload..) {
        match protocol {
            ICMP => echo(payload, number),
            // A data offset of five words, as of a header without options.
            _ => payload[12] = 0x50,
        }
    }
    bytes
}

fn header(workload: Workload) -> Header {
    if !workload.is_tso() {
        return Header::default();
    }
    Header {
        flags: 1,
        gso_type: 1,
        hdr_len: 14 + 40,
        gso_size: 1500 - 40,
        csum_start: 14 + 20,
        csum_offset: 16,
        num_buffers: 0,
    }
}

fn ip_header(len: usize, protocol: u8, tap: u8) -> [u8; 20] {
    let mut header = [0; 20];
    header[0] = 0x45;
    let len = u16::try_from(len).unwrap_or(u16::MAX);
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&address(tap, true));
    header[16..].copy_from_slice(&address(tap, false));
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// An ICMP echo request (RFC 792).
fn echo(message: &mut [u8], number: u16) {
    message[0] = 8;
    message[4..6].copy_from_slice(&0x5249_u16.to_be_bytes());
    // Little-endian, as the driver reads it back.
    message[6..8].copy_from_slice(&number.to_le_bytes());
    let sum = checksum(message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u16::from_be_bytes([*high, *low]),
        [high] => u16::from_be_bytes([*high, 0]),
        _ => 0,
    });
    let mut sum: u64 = words.map(u64::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

const _: () = assert!(TCP_HEADERS + 14 <= 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_size_asked_for_and_sound_checksums() {
        for workload in Workload::ALL {
            let bytes = frame(workload, 7, 3);
            assert_eq!(bytes.len(), HEADER_LEN + workload.bytes);
            let ip = &bytes[HEADER_LEN + 14..];
            assert_eq!(checksum(&ip[..20]), 0);
            if workload.direction == Direction::Echo {
                assert_eq!(checksum(&ip[20..]), 0);
                let at = usize::try_from(SEQUENCE).unwrap();
                assert_eq!(bytes[at..at + 2], 7_u16.to_le_bytes());
            }
        }
    }
}
