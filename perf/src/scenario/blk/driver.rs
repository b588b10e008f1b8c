//! The front end: keeps a queue at its depth until the time is over.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::error::DriveError;
use super::{Mode, Workload};
use crate::interrupt::Interrupt;
use crate::measure::Histogram;
use crate::sys::block_queue::{BlockDevice, BlockQueue, Done, Layout, Operation};

/// A request that takes longer has been lost.
const LOST: Duration = Duration::from_secs(10);
/// How long one wait on an eventfd lasts at most.
const PATIENCE: Duration = Duration::from_millis(200);
/// Polls between two looks at the clock.
const SPINS: u32 = 4096;

/// A connection to a daemon.
pub(crate) struct Driver {
    device: BlockDevice,
    workload: Workload,
    span: u64,
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Requests completed.
    pub requests: u64,
    /// Time from the first submission to the last completion.
    pub elapsed: Duration,
    /// Time from submission to completion, in nanoseconds.
    pub latency: Histogram,
}

impl Driver {
    /// Connects, with the queues that the workload needs, to the first `span` bytes of the disk.
    pub(crate) fn connect(
        socket: &Path,
        workload: Workload,
        mode: Mode,
        span: u64,
    ) -> Result<Self, DriveError> {
        let layout = Layout {
            queues: workload.queues,
            polling: mode == Mode::Polling,
            depth: workload.depth,
            block: workload.block,
        };
        let device = BlockDevice::open(socket, layout)?;
        let span = span.min(device.capacity());
        if span < u64::from(workload.block) {
            return Err(DriveError::TooSmall { bytes: span });
        }
        Ok(Self {
            device,
            workload,
            span,
        })
    }

    /// Loads the disk for that long.
    pub(crate) fn run(
        &mut self,
        duration: Duration,
        seed: u64,
        interrupt: &Interrupt,
    ) -> Result<Load, DriveError> {
        let (workload, span) = (self.workload, self.span);
        let started = Instant::now();
        let deadline = started + duration;
        let mut queues = self.device.queues().iter_mut().zip(0_u64..);
        let drive = move |(queue, index): (&mut BlockQueue, u64)| {
            let offsets = Offsets::new(workload, span, seed, index);
            QueueDriver::new(queue, workload, offsets).run(deadline, interrupt)
        };
        // The first queue is this thread's: a single queue needs no other thread.
        let first = queues.next();
        let loads: Vec<Result<Load, DriveError>> = thread::scope(|scope| {
            let threads: Vec<_> = queues
                .map(|queue| scope.spawn(move || drive(queue)))
                .collect();
            let first = first.map(drive);
            let joined = threads.into_iter().flat_map(thread::ScopedJoinHandle::join);
            first.into_iter().chain(joined).collect()
        });
        let mut sum = Load::default();
        for load in loads {
            let load = load?;
            sum.requests += load.requests;
            sum.elapsed = sum.elapsed.max(load.elapsed);
            sum.latency.merge(&load.latency);
        }
        Ok(sum)
    }
}

/// One queue's loop.
struct QueueDriver<'a> {
    queue: &'a mut BlockQueue,
    operation: Operation,
    offsets: Offsets,
    /// When the request in each slot was submitted.
    submitted: Vec<Instant>,
    free: Vec<u16>,
}

impl<'a> QueueDriver<'a> {
    fn new(queue: &'a mut BlockQueue, workload: Workload, offsets: Offsets) -> Self {
        let operation = match workload.pattern.is_write() {
            true => Operation::Write,
            false => Operation::Read,
        };
        Self {
            queue,
            operation,
            offsets,
            submitted: vec![Instant::now(); usize::from(workload.depth)],
            free: (0..workload.depth).collect(),
        }
    }

    fn run(mut self, deadline: Instant, interrupt: &Interrupt) -> Result<Load, DriveError> {
        let started = Instant::now();
        let mut now = started;
        let mut load = Load::default();
        loop {
            if now < deadline {
                self.submit(now);
            }
            if self.free.len() == self.submitted.len() {
                break;
            }
            now = self.wait(&mut load, now, interrupt)?;
            interrupt.check()?;
        }
        load.elapsed = now - started;
        Ok(load)
    }

    /// One reading of the clock serves a batch: it ends what has completed and begins what
    /// follows at once.
    fn submit(&mut self, now: Instant) {
        while let Some(slot) = self.free.pop() {
            self.submitted[usize::from(slot)] = now;
            let offset = self.offsets.next();
            self.queue.submit(self.operation, slot, offset);
        }
    }

    /// Waits for the next completions; the time when they were seen.
    fn wait(
        &mut self,
        load: &mut Load,
        since: Instant,
        interrupt: &Interrupt,
    ) -> Result<Instant, DriveError> {
        let mut spins = 0_u32;
        loop {
            let before = self.free.len();
            if self.take()? > 0 {
                let now = Instant::now();
                for slot in &self.free[before..] {
                    load.count(now - self.submitted[usize::from(*slot)]);
                }
                return Ok(now);
            }
            spins += 1;
            if spins.is_multiple_of(SPINS) || !self.queue.is_polling() {
                interrupt.check()?;
                if since.elapsed() > LOST {
                    return Err(DriveError::Lost(LOST));
                }
            }
            std::hint::spin_loop();
        }
    }

    /// Frees the slots of what has completed.
    fn take(&mut self) -> Result<usize, DriveError> {
        let mut failed = None;
        let taken = self.queue.take(PATIENCE, |Done { slot, result }| {
            self.free.push(slot);
            if result != 0 {
                failed = Some(std::io::Error::from_raw_os_error(-result));
            }
        })?;
        match failed {
            Some(error) => Err(DriveError::Request(error)),
            None => Ok(taken),
        }
    }
}

impl Load {
    fn count(&mut self, latency: Duration) {
        self.requests += 1;
        let nanoseconds = latency.as_secs() * 1_000_000_000 + u64::from(latency.subsec_nanos());
        self.latency.record(nanoseconds);
    }
}

/// Where the next request goes.
struct Offsets {
    block: u64,
    blocks: u64,
    sequential: bool,
    state: u64,
}

impl Offsets {
    fn new(workload: Workload, span: u64, seed: u64, queue: u64) -> Self {
        let blocks = span / u64::from(workload.block);
        let sequential = workload.pattern.is_sequential();
        let state = match sequential {
            // Each queue walks on from a place of its own.
            true => blocks / u64::from(workload.queues) * queue,
            false => (seed + queue + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        };
        Self {
            block: u64::from(workload.block),
            blocks,
            sequential,
            state,
        }
    }

    fn next(&mut self) -> u64 {
        if self.sequential {
            let block = self.state % self.blocks;
            self.state = block + 1;
            return block * self.block;
        }
        // xorshift64: a few cycles, and no block is preferred.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        // The upper half of the product of 32-bit halves: a range without a division.
        (((self.state >> 32) * self.blocks) >> 32) * self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::blk::Pattern;

    fn workload(pattern: Pattern) -> Workload {
        Workload {
            pattern,
            block: 4096,
            depth: 1,
            queues: 2,
        }
    }

    #[test]
    fn random_offsets_cover_the_span_and_stay_inside() {
        let span = 16 * 4096 + 100;
        let mut offsets = Offsets::new(workload(Pattern::RandomRead), span, 7, 1);
        let mut seen = [false; 16];
        for _ in 0..1000 {
            let offset = offsets.next();
            assert!(offset.is_multiple_of(4096) && offset + 4096 <= span);
            seen[usize::try_from(offset / 4096).unwrap()] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }

    #[test]
    fn sequential_offsets_wrap_around() {
        let mut offsets = Offsets::new(workload(Pattern::SequentialRead), 4 * 4096, 7, 1);
        let blocks: Vec<_> = (0..4).map(|_| offsets.next() / 4096).collect();
        assert_eq!(blocks, [2, 3, 0, 1]);
    }
}
