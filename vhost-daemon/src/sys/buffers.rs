//! Guest buffers: checked ranges of guest memory as host addresses.

use std::io;
use std::mem::size_of;
use std::rc::Rc;

use smallvec::SmallVec;
use thiserror::Error;
use vm_memory::{
    Address, ByteValued, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, VolatileSlice,
};

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
/// [`io::Read`] copies out of the front and consumes it; [`io::Write`] copies into the front and
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

    /// Copies one object out of the front and consumes it; `None`, unchanged, if there are too
    /// few bytes.
    pub fn read_obj<T: ByteValued + Default>(&mut self) -> Option<T> {
        if self.len < size_of::<T>() {
            return None;
        }
        let mut object = T::default();
        self.copy_out(object.as_mut_slice());
        Some(object)
    }

    /// Copies one object into the front and consumes it; `false`, unchanged, if there are too few
    /// bytes.
    pub fn write_obj<T: ByteValued>(&mut self, object: &T) -> bool {
        if self.len < size_of::<T>() {
            return false;
        }
        self.copy_in(object.as_slice());
        true
    }

    /// Copies the first bytes into `out` without consuming them; returns how many.
    pub fn peek(&self, out: &mut [u8]) -> usize {
        let mut done = 0;
        for iovec in &self.iovecs {
            if done == out.len() {
                break;
            }
            let count = iovec.iov_len.min(out.len() - done);
            volatile(iovec).copy_to(&mut out[done..done + count]);
            done += count;
        }
        done
    }

    /// Copies `bytes` to `offset` without consuming anything; returns how many found room.
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> usize {
        self.parts_from(offset, bytes.len(), |part, done| {
            volatile(part).copy_from(&bytes[done..done + part.iov_len]);
        })
    }

    /// Copies from `offset` into `out` without consuming anything; returns how many bytes there were.
    pub fn read_at(&self, offset: usize, out: &mut [u8]) -> usize {
        self.parts_from(offset, out.len(), |part, done| {
            volatile(part).copy_to(&mut out[done..done + part.iov_len]);
        })
    }

    /// Gives the parts of up to `count` bytes from `offset` on, each with the count of those before it;
    /// returns how many bytes there were.
    fn parts_from(
        &self,
        offset: usize,
        count: usize,
        mut each: impl FnMut(&libc::iovec, usize),
    ) -> usize {
        let (mut skip, mut done) = (offset, 0);
        for iovec in &self.iovecs {
            if done == count {
                break;
            }
            if skip >= iovec.iov_len {
                skip -= iovec.iov_len;
                continue;
            }
            let part = libc::iovec {
                // `skip` is less than the range's length, so the new base is inside it.
                iov_base: iovec.iov_base.wrapping_byte_add(skip),
                iov_len: (iovec.iov_len - skip).min(count - done),
            };
            each(&part, done);
            done += part.iov_len;
            skip = 0;
        }
        done
    }

    /// Sets the first `count` bytes to zero without consuming them.
    pub fn zero_front(&mut self, count: usize) {
        const ZEROES: [u8; 4096] = [0; 4096];
        let mut left = count.min(self.len);
        for iovec in &self.iovecs {
            let mut offset = 0;
            while left > 0 && offset < iovec.iov_len {
                let step = left.min(iovec.iov_len - offset).min(ZEROES.len());
                let part = libc::iovec {
                    iov_base: iovec.iov_base.wrapping_byte_add(offset),
                    iov_len: step,
                };
                volatile(&part).copy_from(&ZEROES[..step]);
                offset += step;
                left -= step;
            }
        }
    }

    /// Copies the first `count` bytes to the front of `to`, without consuming either. Where both
    /// name the same memory nothing is copied.
    pub fn copy_to(&self, to: &Self, count: usize) {
        let (mut from_parts, mut to_parts) = (self.iovecs.iter(), to.iovecs.iter());
        let (mut from, mut into) = (from_parts.next().copied(), to_parts.next().copied());
        let mut left = count.min(self.len).min(to.len);
        while let (Some(source), Some(target), true) = (from, into, left > 0) {
            let step = source.iov_len.min(target.iov_len).min(left);
            if source.iov_base != target.iov_base {
                let cut = |part: libc::iovec| libc::iovec {
                    iov_len: step,
                    ..part
                };
                volatile(&cut(source)).copy_to_volatile_slice(volatile(&cut(target)));
            }
            left -= step;
            from = behind(source, step).or_else(|| from_parts.next().copied());
            into = behind(target, step).or_else(|| to_parts.next().copied());
        }
    }

    /// Whether the address and length of every range are multiples of `align` (a power of two).
    pub fn is_aligned(&self, align: usize) -> bool {
        self.iovecs.iter().all(|part| is_aligned(part, align))
    }

    /// The same bytes as direct I/O can use them: ranges whose address and length are multiples of
    /// `align` (a power of two) stay, the others are replaced by memory of ours of the same length.
    /// `Some(None)` if nothing needs to be replaced, `None` if memory is short.
    ///
    /// The replacement starts with zeroes: [`copy_to`](Self::copy_to) it before a write, and back
    /// after a read.
    pub fn aligned(&self, align: usize) -> Option<Option<Self>> {
        if self.is_aligned(align) {
            return Some(None);
        }
        // Runs of parts that only together are a multiple of `align` become one part of ours.
        let mut runs: SmallVec<[(libc::iovec, bool); 4]> = SmallVec::new();
        let mut open = 0;
        for part in &self.iovecs {
            match runs.last_mut() {
                Some((run, true)) if open > 0 => run.iov_len += part.iov_len,
                _ => runs.push((*part, !is_aligned(part, align))),
            }
            open = match runs.last() {
                Some((run, true)) => run.iov_len % align,
                _ => 0,
            };
        }
        let replaced = runs
            .iter()
            .filter(|run| run.1)
            .map(|run| run.0.iov_len.next_multiple_of(align));
        let bounce = Rc::new(AlignedBytes::zeroed(replaced.sum(), align)?);
        let mut at = 0;
        let mut aligned = Self::empty(self.memory.clone());
        for (mut part, replace) in runs {
            if replace {
                part.iov_base = bounce.address(at);
                at += part.iov_len.next_multiple_of(align);
            }
            aligned.iovecs.push(part);
        }
        aligned.bounce = Some(bounce);
        aligned.len = self.len;
        Some(Some(aligned))
    }

    fn copy_out(&mut self, out: &mut [u8]) -> usize {
        let count = self.peek(out);
        self.advance(count);
        count
    }

    fn copy_in(&mut self, data: &[u8]) -> usize {
        let mut done = 0;
        for iovec in &self.iovecs {
            if done == data.len() {
                break;
            }
            let count = iovec.iov_len.min(data.len() - done);
            volatile(iovec).copy_from(&data[done..done + count]);
            done += count;
        }
        self.advance(done);
        done
    }
}

impl io::Read for Buffers {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        Ok(self.copy_out(out))
    }
}

impl io::Write for Buffers {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(self.copy_in(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_aligned(part: &libc::iovec, align: usize) -> bool {
    (part.iov_base as usize | part.iov_len).is_multiple_of(align)
}

/// What is left of `part` behind its first `step` bytes, if anything.
fn behind(part: libc::iovec, step: usize) -> Option<libc::iovec> {
    let iov_base = part.iov_base.wrapping_byte_add(step);
    (part.iov_len > step).then(|| libc::iovec {
        iov_base,
        iov_len: part.iov_len - step,
    })
}

/// One range of a [`Buffers`] for volatile copying.
fn volatile(iovec: &libc::iovec) -> VolatileSlice<'_> {
    // SAFETY: only called for (parts of) the ranges of a `Buffers` that the caller borrows; by its
    // invariant they lie inside mapped guest memory, which its `PinnedMemory` keeps mapped, or
    // inside the bounce memory it owns.
    unsafe { VolatileSlice::new(iovec.iov_base.cast(), iovec.iov_len) }
}
