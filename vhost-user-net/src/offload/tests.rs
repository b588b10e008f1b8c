use proptest::prelude::*;

use super::*;

const HEADER: usize = HeaderLen::Modern.bytes();

/// TCP over IPv4 behind a virtio header that leaves checksum and segmentation undone.
fn tcp4(payload: usize, gso_size: u16) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[0] = 1;
    bytes[1] = 1;
    bytes[4..6].copy_from_slice(&gso_size.to_le_bytes());
    bytes[6..8].copy_from_slice(&34_u16.to_le_bytes());
    bytes[8..10].copy_from_slice(&16_u16.to_le_bytes());
    bytes.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    let mut ip = [0; 20];
    ip[0] = 0x45;
    ip[4..6].copy_from_slice(&7_u16.to_be_bytes());
    ip[9] = 6;
    ip[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(ip);
    let mut tcp = [0; 20];
    tcp[4..8].copy_from_slice(&1000_u32.to_be_bytes());
    tcp[12] = 0x50;
    tcp[13] = 0x99;
    bytes.extend(tcp);
    bytes.extend((0..payload).map(|at| u8::try_from(at % 251).unwrap()));
    bytes
}

fn finished(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Contradiction> {
    let header = FrameHeader::parse(bytes, bytes.len() - HEADER).ok_or(Contradiction)?;
    let mut frames = Vec::new();
    finish(header, bytes, |header, parts| {
        assert_eq!(*header, PLAIN);
        frames.push(parts.concat());
        true
    })?;
    Ok(frames)
}

/// Of a TCP/IPv4 frame: zero if the checksum is right.
fn tcp_checksum(frame: &[u8]) -> u16 {
    let covered = &frame[34..];
    let pseudo = checksum::sum(&frame[26..34], 6 + covered.len() as u64);
    checksum::finish(checksum::sum(covered, pseudo))
}

#[test]
fn segments_add_up_to_the_frame() {
    let bytes = tcp4(3001, 1000);
    let frames = finished(&bytes).unwrap();
    let lengths: Vec<_> = frames.iter().map(|frame| frame.len() - 54).collect();
    assert_eq!(lengths, [1000, 1000, 1000, 1]);
    let payload: Vec<u8> = frames
        .iter()
        .flat_map(|frame| frame[54..].to_vec())
        .collect();
    assert_eq!(payload, bytes[HEADER + 54..]);
    for (frame, index) in frames.iter().zip(0_u16..) {
        assert_eq!(checksum::finish(checksum::sum(&frame[14..34], 0)), 0);
        assert_eq!(tcp_checksum(frame), 0);
        assert_eq!(frame[18..20], (7 + index).to_be_bytes());
        assert_eq!(
            frame[38..42],
            (1000 + 1000 * u32::from(index)).to_be_bytes()
        );
        // CWR with the first, FIN and PSH with the last.
        let flags = [0x90, 0x10, 0x10, 0x19][usize::from(index)];
        assert_eq!(frame[47], flags);
    }
}

#[test]
fn no_more_segments_are_made_than_there_is_room_for() {
    let bytes = tcp4(60_000, 1);
    let header = FrameHeader::parse(&bytes, bytes.len() - HEADER).unwrap();
    let mut made = 0;
    finish(header, &bytes, |_, _| {
        made += 1;
        made < 10
    })
    .unwrap();
    assert_eq!(made, 10);
}

#[test]
fn a_checksum_is_completed_from_the_senders_part_of_it() {
    let mut bytes = tcp4(33, 1);
    bytes[1] = 0;
    let len = bytes.len() - HEADER - 34;
    let start = HEADER + 26;
    let pseudo = checksum::sum(&bytes[start..start + 8], 6 + len as u64);
    let seed = !checksum::finish(pseudo);
    bytes[HEADER + 50..HEADER + 52].copy_from_slice(&seed.to_be_bytes());
    let frames = finished(&bytes).unwrap();
    assert_eq!(frames.len(), 1);
    assert_eq!(tcp_checksum(&frames[0]), 0);
}

#[test]
fn what_has_to_be_done_is_told() {
    let undone = |bytes: &[u8]| FrameHeader::parse(bytes, 2000).map(FrameHeader::undone);
    let tso = tcp4(100, 10);
    assert_eq!(undone(&tso), Some(Offloads::CHECKSUM | Offloads::TSO4));
    assert_eq!(undone(&PLAIN), Some(Offloads::NONE));
    // A kind that is unknown, no size, a checksum outside of the frame.
    for (at, byte) in [(1, 0x7f), (4, 0), (7, 0xff)] {
        let mut bad = tso.clone();
        bad[at] = byte;
        bad[5] = 0;
        assert_eq!(undone(&bad), None);
    }
}

proptest! {
    #[test]
    fn any_frame_is_finished_or_refused(
        mut bytes in proptest::collection::vec(any::<u8>(), HEADER + 14..400),
        gso in prop_oneof![Just(0_u8), Just(1), Just(4), Just(5)],
        start in 0_u8..80,
        offset in 0_u8..20,
        kind in prop_oneof![Just([8_u8, 0]), Just([0x86, 0xdd]), Just([0x81, 0])],
    ) {
        bytes[0] = 1;
        bytes[1] = gso;
        bytes[6..10].copy_from_slice(&[start, 0, offset, 0]);
        bytes[HEADER + 12..HEADER + 14].copy_from_slice(&kind);
        if let Ok(frames) = finished(&bytes) {
            prop_assert!(!frames.is_empty());
            prop_assert!(frames.iter().all(|frame| frame.len() <= bytes.len() - HEADER));
        }
    }
}
