//! Where the blocks are kept. Nothing here knows of rings or requests.

mod in_memory;
mod null;
mod present;
mod raw;

use std::io;
use std::os::fd::BorrowedFd;

use vhost_daemon::queue::Buffers;
use vhost_daemon::worker::Io;

pub use null::NullStorage;
pub use raw::{OpenError, RawFile, RawOptions};

/// A back end: it says which kernel operation does a block operation. The queue's thread runs it.
///
/// Operations name the storage's files by their place in [`files`](Self::files).
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
    fn read(&self, offset: u64, data: Buffers) -> Io;

    /// Writes `data` at `offset` bytes; `durable` writes are on the medium once done.
    fn write(&self, offset: u64, data: Buffers, durable: bool) -> Io;

    /// Makes what was written durable.
    fn flush(&self) -> Io;

    /// Gives the space of a range back.
    fn discard(&self, offset: u64, len: u64) -> Io;

    /// Makes a range read as zeroes, giving its space back if `unmap`.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Io;

    /// What addresses, lengths and offsets of reads and writes must be a multiple of; 1 if anything
    /// will do. Never more than the block size the guest sees.
    fn alignment(&self) -> usize {
        1
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
