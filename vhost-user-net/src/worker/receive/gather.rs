//! The guest's buffers, popped and given to frames that are to come.

use smallvec::SmallVec;
use vhost_daemon::queue::Chain;
use vhost_daemon::sys::Buffers;
use vhost_daemon::worker::Context;

use super::Receive;
use crate::backend::Port;
use crate::features::Negotiated;
use crate::sys::FrameBatch;
use crate::worker::held::{Allotment, Held, HeldBuffers};

impl<P: Port> Receive<P> {
    /// Pops buffers for a batch of frames, as far as the guest has them: a frame, however short, takes one
    /// at least.
    pub(super) fn gather(&mut self, cx: &mut Context<()>, frames: usize) {
        let bytes = match self.agreed.mergeable() {
            true => frames * self.depth.bytes(),
            false => 0,
        };
        let enough = |held: &HeldBuffers| held.len() >= frames && held.bytes() >= bytes;
        while !enough(&self.held) {
            if !self.pop(cx) {
                return;
            }
        }
    }

    /// Frames to ask for at once. In order, one that may need several buffers comes alone: how many it
    /// leaves unused is known when it is there.
    pub(super) fn batch(&mut self, cx: &mut Context<()>) -> usize {
        let frames = self.depth.frames();
        if !self.ordered || !self.agreed.mergeable() {
            return frames;
        }
        if self.held.is_empty() {
            self.pop(cx);
        }
        let oldest = self.held.oldest();
        match oldest.map(|oldest| self.held.room(&[oldest])) {
            Some(room) if room < self.depth.bytes() => 1,
            _ => frames,
        }
    }

    /// Pops one sound buffer; `false` if the guest has none.
    pub(super) fn pop(&mut self, cx: &mut Context<()>) -> bool {
        let popped = pop_buffer(cx, self.agreed, &mut self.held);
        self.in_vain &= !popped;
        popped
    }

    pub(super) fn allot(&mut self, most: usize) -> SmallVec<[Allotment; FrameBatch::MOST]> {
        let mut allotments = SmallVec::new();
        let several = self.agreed.mergeable() && !(self.ordered && most > 1);
        while allotments.len() < most {
            let allotment = self.held.allot(self.depth.bytes(), several);
            if allotment.is_empty() {
                break;
            }
            allotments.push(allotment);
        }
        allotments
    }
}

/// Pops one sound buffer; `false` if the guest has none.
fn pop_buffer(cx: &mut Context<()>, agreed: Negotiated, held: &mut HeldBuffers) -> bool {
    while let Some((token, chain)) = cx.pop() {
        match check(agreed, chain) {
            Ok(buffers) => {
                // Those still left by an earlier process lie between this one and the ring's next.
                let to_come = u16::try_from(cx.queue().left_over()).unwrap_or(u16::MAX);
                let next_avail = cx.queue().next_avail().wrapping_sub(to_come);
                held.push(Held {
                    token,
                    buffers,
                    next_avail,
                    left_over: cx.queue().popped_left_over(),
                });
                return true;
            }
            Err(fault) => {
                cx.guest_fault(&fault);
                cx.complete(token, 0);
            }
        }
    }
    false
}

fn check(agreed: Negotiated, chain: Chain) -> Result<Buffers, &'static str> {
    if !chain.readable.is_empty() {
        Err("a receive buffer that the device is to read")
    } else if chain.writable.len() < agreed.header_len().bytes() {
        // virtio 1.2, 5.1.6.3.1: each buffer holds at least the header.
        Err("a receive buffer shorter than a frame's header")
    } else {
        Ok(chain.writable)
    }
}
