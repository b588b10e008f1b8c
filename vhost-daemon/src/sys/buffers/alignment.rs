//! Buffers as direct I/O can use them.

use std::rc::Rc;

use smallvec::SmallVec;

use super::Buffers;
use crate::sys::aligned::AlignedBytes;

impl Buffers {
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
}

fn is_aligned(part: &libc::iovec, align: usize) -> bool {
    (part.iov_base as usize | part.iov_len).is_multiple_of(align)
}
