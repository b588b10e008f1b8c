//! The one place that joins ring and storage.

mod counts;
mod in_flight;
mod tasks;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vhost_daemon::queue::{Chain, Token};
use vhost_daemon::rate::Limits;
use vhost_daemon::worker::{Context, Io, QueueWorker, Submission, WatchId};

use crate::request::{Disk, Request, Serial, Status, StatusByte, parse};
use crate::storage::{Operation, Storage};
use crate::tasks::Tasks;
use crate::write_cache::WriteCache;
pub use counts::OperationCounts;
pub use in_flight::{InFlight, Tag};
use in_flight::{Transfer, Work};
use tasks::Closing;

/// Serves one queue of a disk.
pub struct BlockWorker<S> {
    storage: Arc<S>,
    disk: Disk,
    capacity: Arc<AtomicU64>,
    serial: Serial,
    write_cache: Arc<WriteCache>,
    /// The queue's number.
    index: usize,
    counts: OperationCounts,
    alignment: usize,
    limits: Arc<Limits>,
    /// A limit holds the next request back.
    held_back: bool,
    /// Made with the first task.
    tasks: Option<Tasks<Option<InFlight>>>,
    /// They are being run.
    in_tasks: bool,
    closing: Closing,
}

type Cx = Context<Tag>;

/// A queue that is held back looks at its limits again after this time: they may have changed.
const LIMIT_REVIEW: Duration = Duration::from_millis(100);

impl<S: Storage> BlockWorker<S> {
    pub(crate) fn new(
        storage: Arc<S>,
        (disk, capacity): (Disk, Arc<AtomicU64>),
        serial: Serial,
        (write_cache, index): (Arc<WriteCache>, usize),
        counts: OperationCounts,
        limits: Arc<Limits>,
    ) -> Self {
        let alignment = storage.buffer_alignment();
        Self {
            storage,
            disk,
            capacity,
            serial,
            write_cache,
            index,
            counts,
            alignment,
            limits,
            held_back: false,
            tasks: None,
            in_tasks: false,
            closing: Closing::default(),
        }
    }

    fn begin(&mut self, cx: &mut Cx, token: Token, status: StatusByte, request: Request) {
        let counts = &self.counts;
        let (count, work) = match request {
            Request::Read { offset, data } => {
                (&counts.read, Work::Read(Transfer::new(offset, data)))
            }
            Request::Write { offset, data } => {
                (&counts.write, Work::Write(Transfer::new(offset, data)))
            }
            Request::Flush => (&counts.flush, Work::Flush),
            Request::Discard(ranges) => (&counts.discard, Work::Discard(ranges)),
            Request::WriteZeroes(ranges) => (&counts.write_zeroes, Work::WriteZeroes(ranges)),
            Request::GetId(mut data) => {
                let written = data.write(self.serial.bytes()).unwrap_or(0);
                let written = u32::try_from(written).unwrap_or(0);
                return finish(cx, token, status, Status::Ok, written);
            }
        };
        count.add(1);
        let request = InFlight {
            token,
            status,
            work,
        };
        if matches!(request.work, Work::Flush) {
            self.write_cache.flushed();
            let flush = self.storage.flush();
            return self.start(cx, request, flush);
        }
        self.go_on(cx, request);
    }

    /// Starts the request's next operation, or answers it if there is none.
    fn go_on(&mut self, cx: &mut Cx, mut request: InFlight) {
        let operation = match &mut request.work {
            Work::Read(transfer) if !transfer.rest.is_empty() => {
                let buffers = transfer.next(self.alignment, false);
                buffers.map(|buffers| self.storage.read(transfer.offset, buffers))
            }
            Work::Write(transfer) if !transfer.rest.is_empty() => {
                let durable = !self.write_cache.is_on();
                let buffers = transfer.next(self.alignment, true);
                buffers.map(|buffers| self.storage.write(transfer.offset, buffers, durable))
            }
            Work::Discard(ranges) if !ranges.is_empty() => ranges
                .pop()
                .map(|range| self.storage.discard(range.offset, range.len)),
            Work::WriteZeroes(ranges) if !ranges.is_empty() => ranges.pop().map(|range| {
                self.storage
                    .write_zeroes(range.offset, range.len, range.unmap)
            }),
            // Zeroes are written: without a cache they are answered once they are durable.
            Work::WriteZeroes(_) if !self.write_cache.is_on() => {
                request.work = Work::Flush;
                Some(self.storage.flush())
            }
            _ => return succeed(cx, request),
        };
        match operation {
            Some(operation) => self.start(cx, request, operation),
            None => fail(cx, request, &io::ErrorKind::OutOfMemory.into()),
        }
    }

    fn start(&mut self, cx: &mut Cx, request: InFlight, operation: Operation) {
        match operation {
            Operation::Io(io) => self.start_io(cx, request, io),
            Operation::Task(task) => self.start_task(cx, request, task),
        }
    }

    fn start_io(&mut self, cx: &mut Cx, request: InFlight, io: Io) {
        match self.storage.run_now(&io) {
            Some(result) => self.done(cx, request, io, result),
            None => {
                let tag = Tag::Request(request);
                if let Submission::Refused(Tag::Request(request), error) = cx.push(tag, io) {
                    fail(cx, request, &error);
                }
            }
        }
    }

    fn done(&mut self, cx: &mut Cx, request: InFlight, io: Io, result: io::Result<u32>) {
        match result {
            Ok(count) => self.advance(cx, request, io, count),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                match self.storage.instead_of(&io) {
                    Some(io) => self.start_io(cx, request, io),
                    None => {
                        cx.backend_error(request.work.name(), &error);
                        finish(cx, request.token, request.status, Status::Unsupported, 0);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.start_io(cx, request, io);
            }
            Err(error) => fail(cx, request, &error),
        }
    }

    /// Goes on after an operation that moved `count` bytes.
    fn advance(&mut self, cx: &mut Cx, mut request: InFlight, io: Io, count: u32) {
        let (Work::Read(transfer) | Work::Write(transfer)) = &mut request.work else {
            return self.go_on(cx, request);
        };
        match io {
            Io::Read { mut buffers, .. } => {
                transfer.moved(&buffers, count);
                buffers.advance(count as usize);
                let offset = transfer.offset;
                match buffers.is_empty() {
                    true => {
                        transfer.bounced = None;
                        self.go_on(cx, request);
                    }
                    false if count == 0 => fail(cx, request, &truncated()),
                    false => {
                        let read = self.storage.read(offset, buffers);
                        self.start(cx, request, read);
                    }
                }
            }
            Io::Write { mut buffers, .. } => {
                transfer.moved(&buffers, count);
                buffers.advance(count as usize);
                let (offset, durable) = (transfer.offset, !self.write_cache.is_on());
                match buffers.is_empty() {
                    true => self.go_on(cx, request),
                    false if count == 0 => fail(cx, request, &io::ErrorKind::WriteZero.into()),
                    false => {
                        let write = self.storage.write(offset, buffers, durable);
                        self.start(cx, request, write);
                    }
                }
            }
            Io::Fsync { .. } | Io::Fallocate { .. } => self.go_on(cx, request),
        }
    }
}

impl<S: Storage> QueueWorker for BlockWorker<S> {
    type Tag = Tag;

    fn start(&mut self, cx: &mut Cx) -> io::Result<()> {
        let queue = cx.queue();
        let (ring, used) = (*queue.identity(), queue.next_used());
        self.write_cache.ring_starts(self.index, &ring, used);
        let files = self.storage.files();
        if files.is_empty() {
            Ok(())
        } else {
            cx.register_files(&files)
        }
    }

    fn turn(&mut self, cx: &mut Cx) -> usize {
        self.held_back = false;
        for done in 0..Cx::BATCH {
            // What an earlier process left is not held back: a stop waits for it.
            if self.limits.is_limited()
                && cx.queue().left_over() == 0
                && let Some(wait) = self.limits.wait(cx.queue().now())
            {
                self.held_back = true;
                cx.wake_after(wait.min(LIMIT_REVIEW));
                return done;
            }
            match cx.pop() {
                Some((token, chain)) => self.request(cx, token, chain),
                None => return done,
            }
        }
        Cx::BATCH
    }

    fn wants_requests(&self) -> bool {
        !self.held_back
    }

    fn request(&mut self, cx: &mut Cx, token: Token, chain: Chain) {
        if self.limits.is_limited() {
            self.limits
                .take(chain.readable.len() + chain.writable.len());
        }
        self.disk.capacity = self.capacity.load(Ordering::Relaxed);
        match parse(chain, &self.disk) {
            Ok((Ok(request), status)) => self.begin(cx, token, status, request),
            Ok((Err(refusal), status)) => {
                cx.guest_fault(&refusal);
                finish(cx, token, status, refusal.status(), 0);
            }
            Err(malformed) => {
                cx.guest_fault(&malformed);
                cx.complete(token, 0);
            }
        }
    }

    fn completed(&mut self, cx: &mut Cx, tag: Tag, io: Io, result: io::Result<u32>) {
        match tag {
            Tag::Request(request) => self.done(cx, request, io, result),
            Tag::Task(operation) => self.task_operation_done(cx, operation, io, result),
        }
    }

    fn ready(&mut self, cx: &mut Cx, watch: WatchId) {
        self.woken(cx, watch);
    }

    fn pending(&self) -> usize {
        self.tasks.as_ref().map_or(0, Tasks::len)
    }

    fn stop(&mut self, cx: &mut Cx) {
        self.close(cx);
    }
}

fn truncated() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the image ends before its capacity",
    )
}

fn fail(cx: &mut Cx, request: InFlight, error: &io::Error) {
    cx.backend_error(request.work.name(), error);
    finish(cx, request.token, request.status, Status::IoError, 0);
}

fn succeed(cx: &mut Cx, request: InFlight) {
    let metrics = cx.queue().metrics();
    let written = match &request.work {
        Work::Read(transfer) => {
            metrics.bytes_in.add(u64::from(transfer.done));
            transfer.done
        }
        Work::Write(transfer) => {
            metrics.bytes_out.add(u64::from(transfer.done));
            0
        }
        _ => 0,
    };
    finish(cx, request.token, request.status, Status::Ok, written);
}

/// Answers a request: `written` bytes of its writable data were filled.
fn finish(cx: &mut Cx, token: Token, status: StatusByte, answer: Status, written: u32) {
    let used = status.write(answer, written);
    cx.complete(token, used);
}
