//! Requests with a reply over a queue: many in flight, each with its own buffers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{DriverQueue, Error, GuestAddress, Result, Segment, Used};

const ALIGN: usize = 512;
/// What writable buffers hold before the device wrote them.
pub(super) const UNWRITTEN: u8 = 0xee;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Names a request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What came back for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Length in the used ring.
    pub used_len: u32,
    /// The writable buffers as they are now; bytes that nobody wrote are `0xee`.
    pub buffers: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    readable: Vec<(GuestAddress, usize)>,
    writable: Vec<(GuestAddress, usize)>,
}

/// Sends byte strings as chains and hands back what the device wrote for each.
#[derive(Debug)]
pub struct Exchange {
    queue: DriverQueue,
    indirect: bool,
    timeout: Duration,
    next: u64,
    in_flight: HashMap<u32, InFlight>,
    done: HashMap<Ticket, Reply>,
}

impl Exchange {
    /// Takes over a queue.
    #[must_use]
    pub fn new(queue: DriverQueue) -> Self {
        Self {
            queue,
            indirect: false,
            timeout: TIMEOUT,
            next: 0,
            in_flight: HashMap::new(),
            done: HashMap::new(),
        }
    }

    /// Puts chains into indirect tables from now on, or into the ring itself.
    pub fn use_indirect(&mut self, indirect: bool) {
        self.indirect = indirect;
    }

    /// Changes how long [`wait`](Self::wait) waits.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Adds a request of `readable` parts, with writable buffers of the given lengths, without
    /// showing it to the device.
    ///
    /// # Errors
    /// When guest memory or the ring is full.
    pub fn stage(&mut self, readable: &[&[u8]], writable: &[usize]) -> Result<Ticket> {
        let mut segments = Vec::with_capacity(readable.len() + writable.len());
        let (mut sources, mut targets) = (Vec::new(), Vec::new());
        for part in readable.iter().filter(|part| !part.is_empty()) {
            let addr = self.queue.memory().alloc(part.len(), ALIGN)?;
            self.queue.memory().write(addr, part)?;
            segments.push(Segment::readable(addr, length(part.len())?));
            sources.push((addr, part.len()));
        }
        for &len in writable.iter().filter(|&&len| len > 0) {
            let addr = self.queue.memory().alloc(len, ALIGN)?;
            self.queue.memory().fill(addr, UNWRITTEN, len)?;
            segments.push(Segment::writable(addr, length(len)?));
            targets.push((addr, len));
        }
        let head = self.queue.add_chain(&segments, self.indirect)?;
        let ticket = Ticket(self.next);
        self.next += 1;
        let entry = InFlight {
            ticket,
            readable: sources,
            writable: targets,
        };
        self.in_flight.insert(u32::from(head), entry);
        Ok(ticket)
    }

    /// Shows what was staged to the device and kicks where wanted.
    ///
    /// # Errors
    /// When the eventfd cannot be written.
    pub fn kick(&mut self) -> Result<bool> {
        self.queue.kick()
    }

    /// [`stage`](Self::stage) and [`kick`](Self::kick).
    ///
    /// # Errors
    /// As these.
    pub fn submit(&mut self, readable: &[&[u8]], writable: &[usize]) -> Result<Ticket> {
        let ticket = self.stage(readable, writable)?;
        self.kick()?;
        Ok(ticket)
    }

    /// Waits for the reply to one request; replies to others are kept for their turn.
    ///
    /// # Errors
    /// [`Error::NotCompleted`] when the time is up, and as [`DriverQueue::wait_used`].
    pub fn wait(&mut self, ticket: Ticket) -> Result<Reply> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(reply) = self.done.remove(&ticket) {
                return Ok(reply);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (queue, timeout) = (self.queue.index(), self.timeout);
                return Err(Error::NotCompleted { queue, timeout });
            }
            self.collect(left)?;
        }
    }

    /// Takes the replies that are there by now or come within `timeout`.
    ///
    /// # Errors
    /// As [`DriverQueue::wait_used`].
    pub fn wait_any(&mut self, timeout: Duration) -> Result<Vec<(Ticket, Reply)>> {
        if self.done.is_empty() {
            self.collect(timeout)?;
        }
        Ok(self.done.drain().collect())
    }

    /// Takes the replies that are there by now, interrupt or not.
    ///
    /// # Errors
    /// As [`DriverQueue::poll_used`].
    pub fn poll(&mut self) -> Result<Vec<(Ticket, Reply)>> {
        let used = self.queue.poll_used()?;
        self.file(used)?;
        Ok(self.done.drain().collect())
    }

    fn collect(&mut self, timeout: Duration) -> Result<()> {
        let used = self.queue.wait_used(timeout)?;
        self.file(used)
    }

    fn file(&mut self, used: Vec<Used>) -> Result<()> {
        for used in used {
            let Some(request) = self.in_flight.remove(&used.id) else {
                continue;
            };
            let memory = self.queue.memory();
            let read = |&(addr, len): &(GuestAddress, usize)| memory.read(addr, len);
            let buffers = request.writable.iter().map(read).collect::<Result<_>>()?;
            for (addr, len) in request.readable.into_iter().chain(request.writable) {
                memory.free(addr, len, ALIGN);
            }
            self.done.insert(
                request.ticket,
                Reply {
                    used_len: used.len,
                    buffers,
                },
            );
        }
        Ok(())
    }

    /// Requests that the device has not completed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The queue underneath.
    #[must_use]
    pub fn queue(&self) -> &DriverQueue {
        &self.queue
    }

    /// The queue underneath, to tamper with.
    pub fn queue_mut(&mut self) -> &mut DriverQueue {
        &mut self.queue
    }
}

pub(super) fn length(len: usize) -> Result<u32> {
    let limit = "a buffer has at most 4 GiB";
    u32::try_from(len).map_err(|_| Error::BadSize {
        what: "buffer",
        len,
        limit,
    })
}
