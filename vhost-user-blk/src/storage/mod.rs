//! Where the blocks are kept. Nothing here knows of rings or requests.

mod file;
mod format;
mod in_memory;
mod null;
mod present;
pub mod qcow2;
mod raw;

use std::io;
use std::os::fd::BorrowedFd;

use vhost_daemon::queue::Buffers;
use vhost_daemon::worker::Io;

pub use file::OpenError;
pub use format::{Format, FormatNotNamed};
pub use null::NullStorage;
pub use raw::{RawFile, RawOptions};

use crate::tasks::Task;

/// How a block operation is done.
pub enum Operation {
    /// By one operation of the kernel; the caller goes on where it stops short.
    Io(Io),
    /// By a future that does all of it.
    Task(Task),
}

/// A back end: it says how a block operation is done. The queue's thread does it.
///
/// Operations of the kernel name the storage's files by their place in [`files`](Self::files).
pub trait Storage: Send + Sync + 'static {
    /// Capacity in bytes as it is now, a multiple of 512. It may have changed since the last time.
    ///
    /// # Errors
    /// When the medium does not tell.
    fn capacity(&self) -> io::Result<u64>;

    /// Whether writes are refused.
    fn read_only(&self) -> bool;

    /// Whether [`discard`](Self::discard) works.
    fn can_discard(&self) -> bool;

    /// Whether [`write_zeroes`](Self::write_zeroes) works.
    fn can_write_zeroes(&self) -> bool;

    /// The files to register with each queue's io_uring.
    fn files(&self) -> Vec<BorrowedFd<'_>>;

    /// Reads at `offset` bytes into `data`.
    fn read(&self, offset: u64, data: Buffers) -> Operation;

    /// Writes `data` at `offset` bytes; `durable` writes are on the medium once done.
    fn write(&self, offset: u64, data: Buffers, durable: bool) -> Operation;

    /// Makes what was written durable.
    fn flush(&self) -> Operation;

    /// Gives the space of a range back.
    fn discard(&self, offset: u64, len: u64) -> Operation;

    /// Makes a range read as zeroes, giving its space back if `unmap`.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Operation;

    /// What addresses, lengths and offsets of reads and writes must be a multiple of; 1 if anything
    /// will do. Never more than the block size the guest sees.
    fn alignment(&self) -> usize {
        1
    }

    /// What the addresses and lengths of the buffers handed over must be a multiple of.
    fn buffer_alignment(&self) -> usize {
        self.alignment()
    }

    /// Called when a front end is about to be served: for what takes time, in the background.
    fn begin(&self) {}

    /// Called when a queue has stopped and its requests are done: what brings the medium up to date
    /// with them, if anything does.
    fn settle(&self) -> Option<Task> {
        None
    }

    /// Whether the capacity follows the medium's size.
    fn can_resize(&self) -> bool {
        true
    }

    /// Does `io` at once, if that never makes the caller wait; else `None`, and the queue's
    /// io_uring does it.
    fn run_now(&self, io: &Io) -> Option<io::Result<u32>> {
        let _ = io;
        None
    }

    /// The kernel cannot do `refused` on this storage (`EOPNOTSUPP`): another operation to the same
    /// effect, if there is one.
    fn instead_of(&self, refused: &Io) -> Option<Io>;
}
