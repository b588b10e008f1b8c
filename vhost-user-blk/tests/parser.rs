//! The request parser on arbitrary bytes and lengths.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::io::Write;

use proptest::prelude::*;
use vhost_daemon::memory::{Memory, PinnedMemory};
use vhost_daemon::queue::{Buffers, Chain};
use vhost_user_blk::request::{Disk, MAX_SEGMENTS, Malformed, Request, parse};
use vm_memory::GuestAddress;

const CAPACITY: u64 = 1 << 20;

fn chain(readable: &[u8], writable: usize) -> Chain {
    let memory =
        PinnedMemory::new(Memory::from_ranges(&[(GuestAddress(0), 0x4_0000)]).unwrap()).unwrap();
    let mut chain = Chain {
        readable: Buffers::new(memory.clone()),
        writable: Buffers::new(memory.clone()),
    };
    if !readable.is_empty() {
        chain
            .readable
            .append(GuestAddress(0), readable.len())
            .unwrap();
        let mut fill = Buffers::new(memory);
        fill.append(GuestAddress(0), readable.len()).unwrap();
        fill.write_all(readable).unwrap();
    }
    if writable > 0 {
        chain
            .writable
            .append(GuestAddress(0x2_0000), writable)
            .unwrap();
    }
    chain
}

fn header() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![4 => 0_u32..16, 1 => any::<u32>()];
    let sector = prop_oneof![4 => 0_u64..3000, 1 => any::<u64>()];
    (kind, any::<u32>(), sector).prop_map(|(kind, reserved, sector)| {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(reserved.to_le_bytes());
        bytes.extend(sector.to_le_bytes());
        bytes
    })
}

proptest! {
    #[test]
    fn what_is_accepted_lies_on_the_disk(
        header in header(),
        data in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..700),
            (0_usize..9).prop_map(|sectors| vec![0; sectors * 512]),
        ],
        writable in prop_oneof![0_usize..40, (0_usize..9).prop_map(|sectors| sectors * 512 + 1)],
        read_only in any::<bool>(),
    ) {
        let disk = Disk { capacity: CAPACITY, read_only, can_discard: true, can_write_zeroes: true };
        let bytes = [header, data].concat();
        let Ok((request, _status)) = parse(chain(&bytes, writable), &disk) else {
            prop_assert!(writable == 0, "a request that could be answered was not");
            return Ok(());
        };
        match request {
            Ok(Request::Read { offset, data }) => {
                prop_assert_eq!(data.len(), writable - 1);
                prop_assert!(offset + data.len() as u64 <= CAPACITY);
            }
            Ok(Request::Write { offset, data }) => {
                prop_assert!(!read_only);
                prop_assert!(!data.is_empty() && offset + data.len() as u64 <= CAPACITY);
            }
            Ok(Request::Discard(ranges) | Request::WriteZeroes(ranges)) => {
                prop_assert!(!read_only && ranges.len() <= MAX_SEGMENTS as usize);
                for range in ranges {
                    prop_assert!(range.offset + range.len <= CAPACITY && range.len > 0);
                }
            }
            Ok(Request::Flush | Request::GetId(_)) | Err(_) => {}
        }
    }

    #[test]
    fn short_headers_are_told_apart(len in 0_usize..16, writable in 0_usize..3) {
        let disk = Disk {
            capacity: CAPACITY,
            read_only: false,
            can_discard: true,
            can_write_zeroes: true,
        };
        let refused = parse(chain(&vec![0; len], writable), &disk).err();
        prop_assert_eq!(refused, Some(Malformed::ShortHeader(len)));
    }
}
