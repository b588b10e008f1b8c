//! Where in guest memory a request and its reply are.
//!
//! ```text
//! slot   0    in-header (40)          readable
//!       40    first 40 bytes of body  readable: all of READ's, and WRITE's without the data
//!      128    out-header (16)         writable
//!     4096    rest of the body        readable: WRITE's data, on a page of their own
//!      ...    reply's body            writable, from the next page on: READ's data
//! ```

use crate::frontend::fs::{IN_HEADER_BYTES, IN_HEADER_LEN, OUT_HEADER_BYTES, u32_at};
use crate::frontend::{GuestAddress, GuestMemory, Result, Segment};

/// Bytes of a request before the page-aligned part.
pub(super) const HEAD: usize = IN_HEADER_LEN + 40;
const OUT_HEADER: u64 = 128;
const PAGE: usize = 4096;
/// Largest transfer, in bytes and in pages.
pub(super) const MAX_IO: u32 = 1 << 20;
pub(super) const MAX_PAGES: u16 = 256;
/// Room for a transfer, and for a reply to it or the names and lists that other requests carry.
const DATA: usize = MAX_IO as usize + (128 << 10);
const SLOT: usize = PAGE + DATA;
/// Room for the reply of an operation that does not say how much it wants. The largest is
/// `struct fuse_statx_out` with 288 bytes.
const FIXED_REPLY: usize = 512;

/// Guest memory that a queue of that many slots takes.
pub(super) fn queue_bytes(slots: u16) -> usize {
    usize::from(slots) * SLOT + (256 << 10)
}

/// The buffers of a queue's slots.
#[derive(Debug)]
pub(super) struct Slots {
    memory: GuestMemory,
    base: GuestAddress,
}

impl Slots {
    pub(super) fn new(memory: &GuestMemory, slots: u16) -> Result<Self> {
        Ok(Self {
            memory: memory.clone(),
            base: memory.alloc(usize::from(slots) * SLOT, PAGE)?,
        })
    }

    pub(super) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn at(&self, slot: u16, offset: u64) -> GuestAddress {
        GuestAddress(self.base.0 + u64::from(slot) * SLOT as u64 + offset)
    }

    /// Where a request is read to: its first bytes, and the rest.
    pub(super) fn request(&self, slot: u16) -> [(GuestAddress, usize); 2] {
        [(self.at(slot, 0), HEAD), (self.at(slot, PAGE as u64), DATA)]
    }

    /// Where the reply's header is.
    pub(super) fn out_header(&self, slot: u16) -> GuestAddress {
        self.at(slot, OUT_HEADER)
    }

    /// Where the reply's body is, for a request of `len` bytes.
    pub(super) fn reply_body(&self, slot: u16, len: usize) -> GuestAddress {
        self.at(slot, reply_offset(len) as u64)
    }

    /// The chain of a request of `len` bytes with `room` for the reply's body, and how many of its
    /// segments count.
    pub(super) fn chain(&self, slot: u16, len: usize, room: usize) -> ([Segment; 5], usize) {
        let bytes = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let mut chain = [Segment::readable(self.at(slot, 0), IN_HEADER_BYTES); 5];
        let mut count = 1;
        let mut push = |segment| {
            chain[count] = segment;
            count += 1;
        };
        if len > IN_HEADER_LEN {
            let head = len.min(HEAD) - IN_HEADER_LEN;
            push(Segment::readable(
                self.at(slot, IN_HEADER_LEN as u64),
                bytes(head),
            ));
        }
        if len > HEAD {
            push(Segment::readable(
                self.at(slot, PAGE as u64),
                bytes(len - HEAD),
            ));
        }
        push(Segment::writable(self.out_header(slot), OUT_HEADER_BYTES));
        if room > 0 {
            push(Segment::writable(self.reply_body(slot, len), bytes(room)));
        }
        (chain, count)
    }

    /// Copies a whole request of `len` bytes out.
    pub(super) fn copy(&self, slot: u16, len: usize) -> Result<Vec<u8>> {
        let mut bytes = self.memory.read(self.at(slot, 0), len.min(HEAD))?;
        bytes.extend(
            self.memory
                .read(self.at(slot, PAGE as u64), len.saturating_sub(HEAD))?,
        );
        Ok(bytes)
    }
}

fn reply_offset(len: usize) -> usize {
    PAGE + len.saturating_sub(HEAD).next_multiple_of(PAGE)
}

/// Room for a reply's body: as much as a guest's kernel would give, or a little more.
pub(super) fn reply_room(opcode: u32, len: usize, body: &[u8]) -> usize {
    let asked = |offset| u32_at(body, offset).map_or(0, |size| size as usize);
    let wanted = match opcode {
        READLINK => PAGE,
        // struct fuse_read_in: after handle and offset.
        READ | READDIR | READDIRPLUS => asked(16),
        // struct fuse_getxattr_in: zero asks for the size, which comes as a structure.
        GETXATTR | LISTXATTR => asked(0).max(8),
        // struct fuse_ioctl_in.out_size, behind a struct fuse_ioctl_out.
        IOCTL => 16 + asked(28),
        _ => FIXED_REPLY,
    };
    wanted.min(SLOT - reply_offset(len))
}

const READLINK: u32 = 5;
const READ: u32 = 15;
const GETXATTR: u32 = 22;
const LISTXATTR: u32 = 23;
const READDIR: u32 = 28;
const IOCTL: u32 = 39;
const READDIRPLUS: u32 = 44;

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> Slots {
        let memory = GuestMemory::with_size(4 * SLOT).unwrap();
        Slots::new(&memory, 2).unwrap()
    }

    /// All bytes of the request are readable and of the reply writable; nothing overlaps.
    #[test]
    fn chains_hold_request_and_reply_apart() {
        let slots = slots();
        for len in [40, 41, 79, 80, 81, 4096, 80 + (1 << 20)] {
            let (chain, count) = slots.chain(1, len, 600);
            let sum = |writable| -> usize {
                let of_kind = chain[..count].iter().filter(|it| it.writable == writable);
                of_kind.map(|it| it.len as usize).sum()
            };
            assert_eq!((sum(false), sum(true)), (len, 616), "{len}");
            let mut ranges: Vec<_> = chain[..count]
                .iter()
                .map(|it| (it.addr.0, it.addr.0 + u64::from(it.len)))
                .collect();
            ranges.sort_unstable();
            assert!(
                ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0),
                "{len}"
            );
            assert!(ranges[0].0 >= slots.at(1, 0).0);
            assert!(ranges[count - 1].1 <= slots.at(1, 0).0 + SLOT as u64);
        }
    }

    #[test]
    fn data_lie_on_pages() {
        let slots = slots();
        let write = slots.chain(0, 80 + 4096, 8).0[2];
        assert_eq!((write.addr.0 % 4096, write.len), (0, 4096));
        assert_eq!(slots.reply_body(0, 80).0 % 4096, 0);
    }

    #[test]
    fn room_is_what_was_asked_for_and_fits() {
        let mut body = [0; 40];
        body[16..20].copy_from_slice(&65536_u32.to_le_bytes());
        assert_eq!(reply_room(READ, 80, &body), 65536);
        body[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(reply_room(READ, 80, &body), DATA);
        assert_eq!(reply_room(GETXATTR, 60, &[0; 40]), 8);
        assert_eq!(reply_room(1, 50, b"name\0"), FIXED_REPLY);
    }
}
