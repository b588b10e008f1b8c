//! Receive buffers that were popped ahead.

use std::collections::VecDeque;

use vhost_daemon::queue::{Chain, Token};
use vhost_daemon::sys::Buffers;
use vhost_daemon::worker::Context;

use crate::packet::{HEADER, Header};

/// A receive buffer: room for a header, then for bytes.
struct Held {
    token: Token,
    header: Buffers,
    payload: Buffers,
    /// Where the available ring was when it had been popped.
    next_avail: u16,
}

/// Receive buffers, oldest first.
#[derive(Default)]
pub(super) struct HeldBuffers {
    held: VecDeque<Held>,
    room: usize,
}

impl HeldBuffers {
    /// Pops until there are `count` buffers, or room for `bytes`, or no more; whether there is any.
    pub(super) fn gather(&mut self, cx: &mut Context<()>, count: usize, bytes: usize) -> bool {
        while self.held.len() < count && self.room < bytes {
            let Some((token, chain)) = cx.pop() else {
                break;
            };
            match split(chain) {
                Ok((header, payload)) => {
                    self.room += payload.len();
                    let next_avail = cx.queue().next_avail();
                    self.held.push_back(Held {
                        token,
                        header,
                        payload,
                        next_avail,
                    });
                }
                Err(fault) => {
                    cx.guest_fault(&fault);
                    cx.complete(token, 0);
                }
            }
        }
        !self.held.is_empty()
    }

    /// Where bytes go.
    pub(super) fn payloads(&self) -> impl Iterator<Item = &Buffers> {
        self.held.iter().map(|held| &held.payload)
    }

    /// Gives the oldest buffer to the guest, with as many of `len` bytes as it has room for and the
    /// header for so many; returns how many.
    pub(super) fn fill(
        &mut self,
        cx: &mut Context<()>,
        len: usize,
        header: impl FnOnce(usize) -> Header,
    ) -> usize {
        let Some(held) = self.held.pop_front() else {
            return 0;
        };
        self.room -= held.payload.len();
        let part = len.min(held.payload.len());
        held.header.write_at(0, &header(part).to_bytes());
        let used = u32::try_from(HEADER + part).unwrap_or(u32::MAX);
        cx.complete(held.token, used);
        part
    }

    /// Gives the buffers back to the available ring, newest first. Behind a faulty one that was
    /// answered in between the older ones cannot go back: they are completed with nothing in them.
    pub(super) fn give_back(&mut self, cx: &mut Context<()>) {
        self.room = 0;
        while let Some(held) = self.held.pop_back() {
            if held.next_avail == cx.queue().next_avail() {
                cx.unpop(held.token);
            } else {
                cx.complete(held.token, 0);
            }
        }
    }
}

fn split(mut chain: Chain) -> Result<(Buffers, Buffers), &'static str> {
    if !chain.readable.is_empty() {
        return Err("a receive buffer that the device is to read");
    }
    match chain.writable.split_front(HEADER) {
        Some(header) if !chain.writable.is_empty() => Ok((header, chain.writable)),
        _ => Err("a receive buffer without room for a header and a byte"),
    }
}
