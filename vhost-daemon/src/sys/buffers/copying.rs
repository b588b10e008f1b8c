//! Bytes into buffers and out of them.

use std::io;
use std::mem::size_of;

use vm_memory::{ByteValued, VolatileSlice};

use super::Buffers;

impl Buffers {
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
