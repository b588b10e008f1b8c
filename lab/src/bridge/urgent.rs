//! The high-priority queue: `FORGET` and `INTERRUPT`, which have no reply (virtio 1.2, 5.11.6).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Error, Result};
use crate::frontend::fs::{Caller, IN_HEADER_BYTES, IN_HEADER_LEN, header, opcode, u32_at, u64_at};
use crate::frontend::{self, GuestAddress, Segment, SlotQueue};

/// Bytes of a slot: a header and at most 24 bytes.
const SLOT: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(5);

/// One for all lanes: what goes here is rare.
pub(super) struct Urgent {
    queue: Mutex<SlotQueue>,
    /// Of the requests that it makes of one: no other has such a number, and a daemon tells requests
    /// apart by that.
    next: AtomicU64,
    slots: GuestAddress,
}

impl Urgent {
    pub(super) fn new(queue: SlotQueue) -> Result<Self> {
        let driver = queue.queue();
        let slots = driver
            .memory()
            .alloc(usize::from(driver.size()) * SLOT, SLOT)?;
        Ok(Self {
            queue: Mutex::new(queue),
            next: AtomicU64::new(1 << 62),
            slots,
        })
    }

    /// Sends a request as it is.
    pub(super) fn send(&self, request: &[u8]) -> Result<()> {
        self.send_all(std::iter::once(request.to_vec()))
    }

    /// Sends `FORGET`s for a `FORGET` or `BATCH_FORGET`: a guest's virtio-fs driver sends one for
    /// each node.
    pub(super) fn forget(&self, request: &[u8]) -> Result<()> {
        let body = &request[IN_HEADER_LEN.min(request.len())..];
        if u32_at(request, 4) == Some(opcode::FORGET) {
            return self.send(request);
        }
        // struct fuse_batch_forget_in { count, dummy }, then struct fuse_forget_one { nodeid,
        // nlookup } of 16 bytes each.
        let count = u32_at(body, 0).unwrap_or(0) as usize;
        let entries = body
            .get(8..)
            .unwrap_or_default()
            .chunks_exact(16)
            .take(count);
        self.send_all(entries.map(|entry| {
            let caller = Caller {
                pid: 0,
                ..Caller::root(u64_at(entry, 0).unwrap_or(0))
            };
            let len = IN_HEADER_BYTES + 8;
            let unique = self.next.fetch_add(2, Ordering::Relaxed);
            let mut forget = header(len, opcode::FORGET, unique, caller).to_vec();
            forget.extend(&entry[8..]);
            forget
        }))
    }

    fn send_all(&self, requests: impl Iterator<Item = Vec<u8>>) -> Result<()> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for request in requests {
            let slot = free_slot(&mut queue)?;
            let at = GuestAddress(self.slots.0 + u64::from(slot) * SLOT as u64);
            let len = request.len().min(SLOT);
            queue.queue().memory().write(at, &request[..len])?;
            let segment = Segment::readable(at, u32::try_from(len).unwrap_or(0));
            queue.submit(slot, &[segment])?;
        }
        Ok(queue.kick()?)
    }
}

fn free_slot(queue: &mut SlotQueue) -> Result<u16> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        while let Some((slot, _)) = queue.next_used()? {
            queue.return_slot(slot);
        }
        if let Some(slot) = queue.take_slot() {
            return Ok(slot);
        }
        queue.kick()?;
        if Instant::now() >= deadline {
            return Err(Error::FrontEnd(frontend::Error::NotCompleted {
                queue: 0,
                timeout: TIMEOUT,
            }));
        }
        thread::yield_now();
    }
}
