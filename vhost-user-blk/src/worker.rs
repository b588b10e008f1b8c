//! The one place that joins ring and storage.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vhost_daemon::metrics::{Counter, Metrics};
use vhost_daemon::queue::{Chain, Token};
use vhost_daemon::worker::{Context, Io, QueueWorker, Submission};

use crate::request::{Disk, Range, Request, Serial, Status, StatusByte, parse};
use crate::storage::Storage;

/// Requests of one queue by kind.
#[derive(Clone, Debug)]
pub struct OperationCounts {
    read: Arc<Counter>,
    write: Arc<Counter>,
    flush: Arc<Counter>,
    discard: Arc<Counter>,
    write_zeroes: Arc<Counter>,
}

impl OperationCounts {
    /// The counters of queue `queue`, shown as `ringside_block_operations_total`.
    pub fn register(metrics: &Metrics, queue: usize) -> Self {
        let counter = |kind: &str| {
            let labels = format!("queue=\"{queue}\",op=\"{kind}\"");
            metrics.counter("block_operations_total", "Block operations begun", &labels)
        };
        Self {
            read: counter("read"),
            write: counter("write"),
            flush: counter("flush"),
            discard: counter("discard"),
            write_zeroes: counter("write_zeroes"),
        }
    }
}

/// A request whose operation is in the kernel.
pub struct InFlight {
    token: Token,
    status: StatusByte,
    work: Work,
}

/// What is left to do of it once the operation is done.
enum Work {
    /// Bytes of a read that are done so far.
    Read(u32),
    Write,
    Flush,
    /// Ranges still to discard, last first.
    Discard(Vec<Range>),
    /// Ranges still to zero, last first.
    WriteZeroes(Vec<Range>),
}

impl Work {
    fn name(&self) -> &'static str {
        match self {
            Self::Read(_) => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard(_) => "discard",
            Self::WriteZeroes(_) => "write zeroes",
        }
    }
}

/// Serves one queue of a disk.
pub struct BlockWorker<S> {
    storage: Arc<S>,
    disk: Disk,
    serial: Serial,
    write_cache: Arc<AtomicBool>,
    counts: OperationCounts,
}

type Cx = Context<InFlight>;

impl<S: Storage> BlockWorker<S> {
    pub(crate) fn new(
        storage: Arc<S>,
        disk: Disk,
        serial: Serial,
        write_cache: Arc<AtomicBool>,
        counts: OperationCounts,
    ) -> Self {
        Self {
            storage,
            disk,
            serial,
            write_cache,
            counts,
        }
    }

    fn begin(&mut self, cx: &mut Cx, token: Token, status: StatusByte, request: Request) {
        let metrics = cx.queue().metrics();
        let (work, io) = match request {
            Request::Read { offset, data } => {
                self.counts.read.add(1);
                metrics.bytes_in.add(data.len() as u64);
                (Work::Read(0), self.storage.read(offset, data))
            }
            Request::Write { offset, data } => {
                self.counts.write.add(1);
                metrics.bytes_out.add(data.len() as u64);
                let durable = !self.write_cache.load(Ordering::Relaxed);
                (Work::Write, self.storage.write(offset, data, durable))
            }
            Request::Flush => {
                self.counts.flush.add(1);
                (Work::Flush, self.storage.flush())
            }
            Request::Discard(ranges) => {
                self.counts.discard.add(1);
                return self.next_range(
                    cx,
                    InFlight {
                        token,
                        status,
                        work: Work::Discard(ranges),
                    },
                );
            }
            Request::WriteZeroes(ranges) => {
                self.counts.write_zeroes.add(1);
                let work = Work::WriteZeroes(ranges);
                return self.next_range(
                    cx,
                    InFlight {
                        token,
                        status,
                        work,
                    },
                );
            }
            Request::GetId(mut data) => {
                let written = data.write(self.serial.bytes()).unwrap_or(0);
                return finish(
                    cx,
                    token,
                    status,
                    Status::Ok,
                    u32::try_from(written).unwrap_or(0),
                );
            }
        };
        push(
            cx,
            InFlight {
                token,
                status,
                work,
            },
            io,
        );
    }

    /// Begins the next range of a discard or write-zeroes, or ends the request.
    fn next_range(&self, cx: &mut Cx, mut request: InFlight) {
        let io = match &mut request.work {
            Work::Discard(ranges) => ranges
                .pop()
                .map(|range| self.storage.discard(range.offset, range.len)),
            Work::WriteZeroes(ranges) => ranges.pop().map(|range| {
                self.storage
                    .write_zeroes(range.offset, range.len, range.unmap)
            }),
            _ => None,
        };
        match io {
            Some(io) => push(cx, request, io),
            None => finish(cx, request.token, request.status, Status::Ok, 0),
        }
    }

    /// Goes on after an operation that moved `count` bytes.
    fn advance(&self, cx: &mut Cx, mut request: InFlight, io: Io, count: u32) {
        match io {
            Io::Read {
                file,
                mut buffers,
                offset,
            } => {
                buffers.advance(count as usize);
                if let Work::Read(done) = &mut request.work {
                    *done += count;
                }
                if buffers.is_empty() {
                    let done = if let Work::Read(done) = request.work {
                        done
                    } else {
                        0
                    };
                    finish(cx, request.token, request.status, Status::Ok, done);
                } else if count == 0 {
                    fail(cx, request, &truncated());
                } else {
                    let offset = offset + u64::from(count);
                    push(
                        cx,
                        request,
                        Io::Read {
                            file,
                            buffers,
                            offset,
                        },
                    );
                }
            }
            Io::Write {
                file,
                mut buffers,
                offset,
                flags,
            } => {
                buffers.advance(count as usize);
                if buffers.is_empty() {
                    finish(cx, request.token, request.status, Status::Ok, 0);
                } else if count == 0 {
                    fail(cx, request, &io::ErrorKind::WriteZero.into());
                } else {
                    let offset = offset + u64::from(count);
                    push(
                        cx,
                        request,
                        Io::Write {
                            file,
                            buffers,
                            offset,
                            flags,
                        },
                    );
                }
            }
            Io::Fsync { .. } => finish(cx, request.token, request.status, Status::Ok, 0),
            Io::Fallocate { .. } => self.next_range(cx, request),
        }
    }
}

impl<S: Storage> QueueWorker for BlockWorker<S> {
    type Tag = InFlight;

    fn start(&mut self, cx: &mut Cx) -> io::Result<()> {
        cx.register_files(&self.storage.files())
    }

    fn request(&mut self, cx: &mut Cx, token: Token, chain: Chain) {
        match parse(chain, &self.disk) {
            Ok((Ok(request), status)) => self.begin(cx, token, status, request),
            Ok((Err(refusal), status)) => {
                cx.queue().metrics().errors.add(1);
                cx.guest_fault(&refusal);
                finish(cx, token, status, refusal.status(), 0);
            }
            Err(malformed) => {
                cx.guest_fault(&malformed);
                cx.complete(token, 0);
            }
        }
    }

    fn completed(&mut self, cx: &mut Cx, tag: InFlight, io: Io, result: io::Result<u32>) {
        match result {
            Ok(count) => self.advance(cx, tag, io, count),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                match self.storage.instead_of(&io) {
                    Some(io) => push(cx, tag, io),
                    None => finish(cx, tag.token, tag.status, Status::Unsupported, 0),
                }
            }
            Err(error) if is_transient(&error) => push(cx, tag, io),
            Err(error) => fail(cx, tag, &error),
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

fn truncated() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the image ends before its capacity",
    )
}

fn push(cx: &mut Cx, request: InFlight, io: Io) {
    if let Submission::Refused(request, error) = cx.push(request, io) {
        fail(cx, request, &error);
    }
}

fn fail(cx: &mut Cx, request: InFlight, error: &io::Error) {
    cx.backend_error(request.work.name(), error);
    finish(cx, request.token, request.status, Status::IoError, 0);
}

/// Answers a request: `data` bytes were written before the status byte.
fn finish(cx: &mut Cx, token: Token, status: StatusByte, answer: Status, data: u32) {
    status.write(answer);
    cx.complete(token, data.saturating_add(1));
}
