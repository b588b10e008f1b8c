//! The block request parser: whatever it accepts lies on the disk.
//!
//! Byte 0 chooses a read-only disk, bytes 1 and 2 are the number of writable bytes, the rest is what
//! the guest says.

use std::io::Write;

use vhost_daemon::memory::{Memory, PinnedMemory};
use vhost_daemon::queue::{Buffers, Chain};
use vhost_user_blk::request::{Disk, MAX_SEGMENTS, Range, Request, parse};
use vm_memory::GuestAddress;

const CAPACITY: u64 = 1 << 20;

fn buffers(memory: &PinnedMemory, addr: u64, len: usize) -> Buffers {
    let mut buffers = Buffers::new(memory.clone());
    if len > 0 {
        buffers.append(GuestAddress(addr), len).unwrap();
    }
    buffers
}

/// What one input does.
pub fn run(input: &[u8]) {
    let [choice, low, high, said @ ..] = input else {
        return;
    };
    let said = &said[..said.len().min(0x1_0000)];
    let answer = usize::from(u16::from_le_bytes([*low, *high]));
    let memory =
        PinnedMemory::new(Memory::from_ranges(&[(GuestAddress(0), 0x2_0000)]).unwrap()).unwrap();
    buffers(&memory, 0, said.len()).write_all(said).unwrap();
    let chain = Chain {
        readable: buffers(&memory, 0, said.len()),
        writable: buffers(&memory, 0x1_0000, answer),
    };
    let read_only = choice & 1 == 1;
    let disk = Disk {
        capacity: CAPACITY,
        read_only,
        can_discard: true,
        can_write_zeroes: true,
    };
    let on_disk =
        |offset: u64, len: u64| offset.checked_add(len).is_some_and(|end| end <= CAPACITY);
    let ranges_on_disk = |ranges: &[Range]| {
        ranges.len() <= MAX_SEGMENTS as usize
            && ranges.iter().all(|range| on_disk(range.offset, range.len))
    };
    let Ok((Ok(request), _status)) = parse(chain, &disk) else {
        return;
    };
    match request {
        Request::Read { offset, data } => assert!(on_disk(offset, data.len() as u64)),
        Request::Write { offset, data } => {
            assert!(!read_only && on_disk(offset, data.len() as u64));
        }
        Request::Discard(ranges) | Request::WriteZeroes(ranges) => {
            assert!(!read_only && ranges_on_disk(&ranges));
        }
        Request::Flush | Request::GetId(_) => {}
    }
}
