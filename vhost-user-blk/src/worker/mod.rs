//! The one place that joins ring and storage.

mod counts;
mod in_flight;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vhost_daemon::queue::{Buffers, Chain, Token};
use vhost_daemon::worker::{Context, Io, QueueWorker, Submission};

use crate::request::{Disk, Request, Serial, Status, StatusByte, parse};
use crate::storage::Storage;
pub use counts::OperationCounts;
pub use in_flight::InFlight;
use in_flight::Work;

/// Serves one queue of a disk.
pub struct BlockWorker<S> {
    storage: Arc<S>,
    disk: Disk,
    serial: Serial,
    write_cache: Arc<AtomicBool>,
    counts: OperationCounts,
    alignment: usize,
}

type Cx = Context<InFlight>;

impl<S: Storage> BlockWorker<S> {
    pub(crate) fn new(
        storage: Arc<S>,
        serial: Serial,
        write_cache: Arc<AtomicBool>,
        counts: OperationCounts,
    ) -> Self {
        let disk = Disk {
            capacity: storage.capacity(),
            read_only: storage.read_only(),
        };
        let alignment = storage.alignment();
        Self {
            storage,
            disk,
            serial,
            write_cache,
            counts,
            alignment,
        }
    }

    fn begin(&mut self, cx: &mut Cx, token: Token, status: StatusByte, request: Request) {
        let (work, io) = match request {
            Request::Read { offset, data } => self.read(cx, offset, data),
            Request::Write { offset, data } => self.write(cx, offset, data),
            Request::Flush => {
                self.counts.flush.add(1);
                (Work::Flush, self.storage.flush())
            }
            Request::Discard(ranges) => {
                self.counts.discard.add(1);
                let work = Work::Discard(ranges);
                return self.next_range(
                    cx,
                    InFlight {
                        token,
                        status,
                        work,
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
        self.start_io(
            cx,
            InFlight {
                token,
                status,
                work,
            },
            io,
        );
    }

    fn read(&self, cx: &mut Cx, offset: u64, data: Buffers) -> (Work, Io) {
        self.counts.read.add(1);
        cx.queue().metrics().bytes_in.add(data.len() as u64);
        match self.bounce(&data) {
            None => (
                Work::Read {
                    done: 0,
                    bounced: None,
                },
                self.storage.read(offset, data),
            ),
            Some(ours) => {
                let work = Work::Read {
                    done: 0,
                    bounced: Some(data),
                };
                (work, self.storage.read(offset, ours))
            }
        }
    }

    fn write(&self, cx: &mut Cx, offset: u64, mut data: Buffers) -> (Work, Io) {
        self.counts.write.add(1);
        cx.queue().metrics().bytes_out.add(data.len() as u64);
        if let Some(ours) = self.bounce(&data) {
            data.copy_to(&ours, data.len());
            data = ours;
        }
        let durable = !self.write_cache.load(Ordering::Relaxed);
        (Work::Write, self.storage.write(offset, data, durable))
    }

    /// Memory of ours in place of the parts of `data` that the storage cannot use as they are.
    fn bounce(&self, data: &Buffers) -> Option<Buffers> {
        (self.alignment > 1)
            .then(|| data.aligned(self.alignment))
            .flatten()
    }

    fn start_io(&self, cx: &mut Cx, request: InFlight, io: Io) {
        match self.storage.run_now(&io) {
            Some(result) => self.done(cx, request, io, result),
            None => {
                if let Submission::Refused(request, error) = cx.push(request, io) {
                    fail(cx, request, &error);
                }
            }
        }
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
            Some(io) => self.start_io(cx, request, io),
            None => finish(cx, request.token, request.status, Status::Ok, 0),
        }
    }

    fn done(&self, cx: &mut Cx, request: InFlight, io: Io, result: io::Result<u32>) {
        match result {
            Ok(count) => self.advance(cx, request, io, count),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                match self.storage.instead_of(&io) {
                    Some(io) => self.start_io(cx, request, io),
                    None => finish(cx, request.token, request.status, Status::Unsupported, 0),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.start_io(cx, request, io);
            }
            Err(error) => fail(cx, request, &error),
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
                let total = request.work.read_more(&buffers, count);
                buffers.advance(count as usize);
                if buffers.is_empty() {
                    finish(cx, request.token, request.status, Status::Ok, total);
                } else if count == 0 {
                    fail(cx, request, &truncated());
                } else {
                    let offset = offset + u64::from(count);
                    self.start_io(
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
                    self.start_io(
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
        let files = self.storage.files();
        if files.is_empty() {
            Ok(())
        } else {
            cx.register_files(&files)
        }
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
        self.done(cx, tag, io, result);
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

/// Answers a request: `data` bytes were written before the status byte.
fn finish(cx: &mut Cx, token: Token, status: StatusByte, answer: Status, data: u32) {
    status.write(answer);
    cx.complete(token, data.saturating_add(1));
}
