//! A frame that has been received and is not yet the guest's.

use std::time::Instant;

use vhost_daemon::sys::Buffers;

use super::held::{Allotment, HeldBuffers};
use crate::features::Negotiated;
use crate::header::{FLAGS_OFFSET, HeaderLen, NUM_BUFFERS_OFFSET};

/// A frame with its header: the first bytes lie in the buffers it was given, the rest in our own memory.
pub(super) struct Landed {
    pub(super) buffers: Allotment,
    /// Bytes of all of them together that were open to the frame.
    pub(super) in_guest: usize,
    /// Of header and frame.
    pub(super) len: usize,
    /// Which part of our own memory holds the rest.
    pub(super) spill: usize,
    pub(super) since: Instant,
}

impl Landed {
    /// Copies its first bytes, header included; returns how many there are.
    pub(super) fn front(&self, held: &HeldBuffers, spill: &[u8], out: &mut [u8]) -> usize {
        let wanted = out.len().min(self.len);
        let mut done = 0;
        for place in &self.buffers {
            let end = wanted.min(self.in_guest);
            if done >= end {
                break;
            }
            if let Some(buffers) = held.buffers(*place) {
                done += buffers.read_at(0, &mut out[done..end]);
            }
        }
        if done < wanted && done == self.in_guest.min(wanted) {
            let count = (wanted - done).min(spill.len());
            out[done..done + count].copy_from_slice(&spill[..count]);
            done += count;
        }
        done
    }

    /// Copies what spilled into the buffers behind what they hold, and patches the header. Returns how
    /// many of the buffers the frame fills.
    pub(super) fn settle(&self, held: &HeldBuffers, spill: &[u8], agreed: Negotiated) -> usize {
        let mut tail = spill
            .get(..self.len.saturating_sub(self.in_guest))
            .unwrap_or_default();
        let (mut at, mut count) = (0, 0);
        for buffers in self.buffers.iter().filter_map(|place| held.buffers(*place)) {
            if at >= self.len {
                break;
            }
            count += 1;
            let skip = self.in_guest.saturating_sub(at);
            if !tail.is_empty() && skip < buffers.len() {
                let copied = buffers.write_at(skip, tail);
                tail = tail.get(copied..).unwrap_or_default();
            }
            at += buffers.len();
        }
        let first = self.buffers.first().and_then(|place| held.buffers(*place));
        if let Some(first) = first {
            patch_header(first, agreed, count);
        }
        count
    }
}

/// Sets what the port leaves open: `num_buffers`, and `flags` for a driver that did not agree on
/// checksum offload (virtio 1.2, 5.1.6.4.1).
fn patch_header(buffers: &Buffers, agreed: Negotiated, count: usize) {
    if !agreed.checksum() {
        buffers.write_at(FLAGS_OFFSET, &[0]);
    }
    if agreed.header_len() == HeaderLen::Modern {
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        buffers.write_at(NUM_BUFFERS_OFFSET, &count.to_le_bytes());
    }
}
