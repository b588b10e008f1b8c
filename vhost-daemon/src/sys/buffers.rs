//! Guest buffers: checked ranges of guest memory as host addresses.

mod alignment;
mod copying;

use std::rc::Rc;

use smallvec::SmallVec;
use thiserror::Error;
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::aligned::AlignedBytes;
use crate::memory::PinnedMemory;

/// A buffer that a descriptor names lies outside the memory that the front end shared.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("buffer of {len} bytes at guest address {addr:#x} is outside guest memory")]
pub struct OutOfGuestMemory {
    /// Guest physical address of the buffer.
    pub addr: u64,
    /// Its length in bytes.
    pub len: usize,
}

/// A sequence of byte ranges in guest memory, all of them inside the mapped table, or in memory of
/// ours that goes with them.
///
/// The guest may write to the bytes at any time: read what matters once, check the copy and use
/// the copy. The type keeps the table mapped and belongs to one thread.
///
/// [`Read`](std::io::Read) copies out of the front and consumes it; [`Write`](std::io::Write) copies into the front and
/// consumes it. Neither fails; both are short when the buffers end.
pub struct Buffers {
    /// `None` where no byte is the guest's.
    memory: Option<PinnedMemory>,
    /// Memory of ours: it stands in for guest buffers that direct I/O cannot use.
    bounce: Option<Rc<AlignedBytes>>,
    // Invariant: each iovec lies inside a region of `memory` or inside `bounce`, and none is empty.
    iovecs: SmallVec<[libc::iovec; 4]>,
    len: usize,
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Buffers({} bytes in {} parts)",
            self.len,
            self.iovecs.len()
        )
    }
}

impl Buffers {
    /// No bytes yet, over `memory`.
    pub fn new(memory: PinnedMemory) -> Self {
        Self::empty(Some(memory))
    }

    /// `len` bytes of our own memory, all zero, at an address that is a multiple of `align` (a power
    /// of two): for operations on what is not the guest's. `None` when memory is short.
    pub fn zeroed(len: usize, align: usize) -> Option<Self> {
        let mut ours = Self::empty(None);
        if len > 0 {
            let bytes = Rc::new(AlignedBytes::zeroed(len, align)?);
            ours.iovecs.push(libc::iovec {
                iov_base: bytes.address(0),
                iov_len: len,
            });
            ours.bounce = Some(bytes);
            ours.len = len;
        }
        Some(ours)
    }

    fn empty(memory: Option<PinnedMemory>) -> Self {
        Self {
            memory,
            bounce: None,
            iovecs: SmallVec::new(),
            len: 0,
        }
    }

    /// The same bytes once more, for who hands them to an operation and copies from or to them
    /// afterwards.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            memory: self.memory.clone(),
            bounce: self.bounce.clone(),
            iovecs: self.iovecs.clone(),
            len: self.len,
        }
    }

    /// Appends `len` bytes at guest address `addr`.
    ///
    /// # Errors
    /// When any byte of the range is outside guest memory; nothing is appended then.
    pub fn append(&mut self, addr: GuestAddress, len: usize) -> Result<(), OutOfGuestMemory> {
        let parts = self.iovecs.len();
        let mut found = 0;
        while let (Some(memory), true) = (&self.memory, found < len) {
            // Region by region: a slice would carry its dirty log along, at the cost of an atomic
            // operation for each buffer. What is written is logged by the queue.
            let at = addr.checked_add(found as u64);
            let Some((region, start)) = at.and_then(|at| memory.to_region_addr(at)) else {
                break;
            };
            let here = usize::try_from(region.len() - start.0)
                .unwrap_or(0)
                .min(len - found);
            let Ok(host) = region.get_host_address(start) else {
                break;
            };
            found += here;
            self.iovecs.push(libc::iovec {
                iov_base: host.cast(),
                iov_len: here,
            });
        }
        if found != len || len == 0 {
            self.iovecs.truncate(parts);
            return Err(OutOfGuestMemory { addr: addr.0, len });
        }
        self.len += len;
        Ok(())
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ranges as host addresses, for system calls. None is empty.
    ///
    /// Whoever hands them to the kernel keeps the `Buffers` until the kernel is done.
    pub fn iovecs(&self) -> &[libc::iovec] {
        &self.iovecs
    }

    /// Removes the first `count` bytes and returns them; `None`, unchanged, if there are fewer.
    pub fn split_front(&mut self, count: usize) -> Option<Self> {
        if count > self.len {
            return None;
        }
        let mut front = Self::empty(self.memory.clone());
        front.bounce.clone_from(&self.bounce);
        if count == self.len {
            std::mem::swap(self, &mut front);
            return Some(front);
        }
        front.len = count;
        self.len -= count;
        let mut rest = count;
        let mut whole = 0;
        for iovec in &mut self.iovecs {
            if iovec.iov_len > rest {
                if rest > 0 {
                    front.iovecs.push(libc::iovec {
                        iov_base: iovec.iov_base,
                        iov_len: rest,
                    });
                    // `rest` is less than the range's length, so the new base is inside it.
                    iovec.iov_base = iovec.iov_base.wrapping_byte_add(rest);
                    iovec.iov_len -= rest;
                }
                break;
            }
            rest -= iovec.iov_len;
            front.iovecs.push(*iovec);
            whole += 1;
        }
        self.iovecs.drain(..whole);
        Some(front)
    }

    /// Removes the last `count` bytes and returns them; `None`, unchanged, if there are fewer.
    pub fn split_back(&mut self, count: usize) -> Option<Self> {
        let keep = self.len.checked_sub(count)?;
        // Most often it is a part of its own: a status byte behind data.
        if let Some(last) = self.iovecs.last().filter(|last| last.iov_len == count) {
            let mut back = Self::empty(self.memory.clone());
            back.bounce.clone_from(&self.bounce);
            back.iovecs.push(*last);
            self.iovecs.pop();
            back.len = count;
            self.len = keep;
            return Some(back);
        }
        let mut front = self.split_front(keep)?;
        std::mem::swap(self, &mut front);
        Some(front)
    }

    /// Keeps only the first `count` bytes.
    pub fn truncate(&mut self, count: usize) {
        if let Some(front) = self.split_front(count) {
            *self = front;
        }
    }

    /// Drops the first `count` bytes, or all of them if there are fewer.
    pub fn advance(&mut self, count: usize) {
        let mut rest = count.min(self.len);
        self.len -= rest;
        let mut whole = 0;
        for iovec in &mut self.iovecs {
            if iovec.iov_len > rest {
                // `rest` is less than the range's length, so the new base is inside it.
                iovec.iov_base = iovec.iov_base.wrapping_byte_add(rest);
                iovec.iov_len -= rest;
                break;
            }
            rest -= iovec.iov_len;
            whole += 1;
        }
        self.iovecs.drain(..whole);
    }
}
