//! Guest buffers against a model: a plain vector of bytes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::io::{Read, Write};

use proptest::prelude::*;
use vhost_daemon::memory::{Memory, PinnedMemory};
use vhost_daemon::queue::Buffers;
use vm_memory::{Bytes, GuestAddress};

/// Less for Miri, which takes its time for each byte of a model.
const MEMORY: usize = if cfg!(miri) { 0x8000 } else { 0x2_0000 };
const WRITTEN: usize = if cfg!(miri) { 0x100 } else { 0x3000 };

/// Two adjacent regions: parts may cross the border.
fn memory() -> PinnedMemory {
    let half = MEMORY / 2;
    let regions = [(GuestAddress(0), half), (GuestAddress(half as u64), half)];
    let memory = Memory::from_ranges(&regions).unwrap();
    let bytes: Vec<u8> = (0..MEMORY)
        .map(|n| ((n * 7 + n / 256) % 251) as u8)
        .collect();
    memory.write_slice(&bytes, GuestAddress(0)).unwrap();
    PinnedMemory::new(memory).unwrap()
}

fn whole(memory: &PinnedMemory) -> Vec<u8> {
    let mut bytes = vec![0; MEMORY];
    memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes
}

type Parts = Vec<(usize, usize)>;

/// Parts that do not overlap, so that the model is a plain concatenation.
fn parts() -> impl Strategy<Value = Parts> {
    prop::collection::vec((0_usize..0x3000, 1_usize..0x1000), 1..8).prop_map(|gaps| {
        let mut at = 0;
        let mut parts = Vec::new();
        for (gap, len) in gaps {
            if at + gap + len <= MEMORY {
                parts.push((at + gap, len));
                at += gap + len;
            }
        }
        parts
    })
}

fn build(memory: &PinnedMemory, parts: &Parts) -> (Buffers, Vec<usize>) {
    let mut buffers = Buffers::new(memory.clone());
    let mut places = Vec::new();
    for (at, len) in parts {
        buffers.append(GuestAddress(*at as u64), *len).unwrap();
        places.extend(*at..at + len);
    }
    (buffers, places)
}

fn drained(mut buffers: Buffers) -> Vec<u8> {
    let mut bytes = Vec::new();
    buffers.read_to_end(&mut bytes).unwrap();
    bytes
}

proptest! {
    #[test]
    fn reading_and_splitting_follow_the_model(
        parts in parts(),
        cuts in prop::collection::vec(0_usize..0x4000, 0..6),
    ) {
        let memory = memory();
        let bytes = whole(&memory);
        let (mut buffers, places) = build(&memory, &parts);
        let mut model: Vec<u8> = places.iter().map(|at| bytes[*at]).collect();
        for (n, cut) in cuts.into_iter().enumerate() {
            let total: usize = buffers.iovecs().iter().map(|part| part.iov_len).sum();
            prop_assert_eq!((buffers.len(), total), (model.len(), model.len()));
            prop_assert!(buffers.iovecs().iter().all(|part| part.iov_len > 0));
            let fits = cut <= model.len();
            let got = match n % 3 {
                0 => buffers.split_front(cut),
                1 => buffers.split_back(cut),
                _ => {
                    let mut got = vec![0; cut];
                    let count = buffers.read(&mut got).unwrap();
                    let expected: Vec<u8> = model.drain(..cut.min(model.len())).collect();
                    prop_assert_eq!(&got[..count], &expected[..]);
                    continue;
                }
            };
            prop_assert_eq!(got.is_some(), fits);
            if let Some(got) = got {
                let at = if n % 3 == 0 { 0 } else { model.len() - cut };
                let expected: Vec<u8> = model.drain(at..at + cut).collect();
                prop_assert_eq!(drained(got), expected);
            }
        }
    }

    #[test]
    fn writing_touches_the_named_bytes_and_no_other(
        parts in parts(),
        data in prop::collection::vec(any::<u8>(), 0..WRITTEN),
        zeroes in 0_usize..0x3000,
    ) {
        let memory = memory();
        let mut model = whole(&memory);
        let (mut buffers, places) = build(&memory, &parts);
        let count = buffers.write(&data).unwrap();
        prop_assert_eq!(count, data.len().min(places.len()));
        for (place, byte) in places.iter().zip(&data) {
            model[*place] = *byte;
        }
        buffers.zero_front(zeroes);
        for place in places.iter().skip(count).take(zeroes) {
            model[*place] = 0;
        }
        prop_assert!(whole(&memory) == model);
    }

    #[test]
    fn ranges_outside_memory_are_refused(
        addr in prop_oneof![0..MEMORY as u64 * 2, any::<u64>()],
        len in prop_oneof![0..0x1000_u32, any::<u32>()],
    ) {
        let mut buffers = Buffers::new(memory());
        let end = addr.checked_add(u64::from(len));
        let inside = len > 0 && end.is_some_and(|end| end <= MEMORY as u64);
        prop_assert_eq!(buffers.append(GuestAddress(addr), len as usize).is_ok(), inside);
        prop_assert_eq!(buffers.len(), if inside { len as usize } else { 0 });
    }
}

proptest! {
    #[test]
    fn direct_io_gets_aligned_parts_with_the_same_bytes(
        parts in parts(),
        sectors in prop::collection::vec(0..MEMORY / 0x2000, 0..6),
        keep in 0_usize..4,
    ) {
        let memory = memory();
        let bytes = whole(&memory);
        // Some aligned sectors among arbitrary parts, the whole a number of sectors.
        let (mut buffers, _) = build(&memory, &parts);
        for sector in sectors {
            buffers.append(GuestAddress(sector as u64 * 4096), 512 << keep).unwrap();
        }
        buffers.truncate(buffers.len() / 512 * 512);
        prop_assume!(!buffers.is_empty());
        let mut content = vec![0; buffers.len()];
        buffers.peek(&mut content);

        let Some(aligned) = buffers.aligned(512).unwrap() else {
            let parts = buffers.iovecs();
            prop_assert!(parts.iter().all(|p| (p.iov_base as usize | p.iov_len).is_multiple_of(512)));
            return Ok(());
        };
        prop_assert_eq!(aligned.len(), buffers.len());
        let parts = aligned.iovecs();
        prop_assert!(parts.iter().all(|p| (p.iov_base as usize | p.iov_len).is_multiple_of(512)));
        buffers.copy_to(&aligned, buffers.len());
        let mut copied = vec![0; aligned.len()];
        aligned.peek(&mut copied);
        prop_assert!(copied == content, "guest to bounce");
        prop_assert!(whole(&memory) == bytes, "copying out changed guest memory");
        aligned.copy_to(&buffers, buffers.len());
        prop_assert!(whole(&memory) == bytes, "bounce to guest");
    }
}
