//! A disk of nothing, for measuring what the rest costs.

use std::io;
use std::os::fd::BorrowedFd;

use vhost_daemon::queue::Buffers;
use vhost_daemon::worker::{Io, IoFile};

use super::{Operation, Storage};

/// Takes writes and forgets them; reads leave the guest's buffers as they are.
#[derive(Clone, Copy, Debug)]
pub struct NullStorage {
    /// Capacity in bytes, a multiple of 512.
    pub capacity: u64,
}

/// There is no file; no operation gets as far as the kernel.
const NOWHERE: IoFile = IoFile::Registered(u32::MAX);

impl Storage for NullStorage {
    fn capacity(&self) -> io::Result<u64> {
        Ok(self.capacity)
    }

    fn read_only(&self) -> bool {
        false
    }

    fn can_discard(&self) -> bool {
        true
    }

    fn can_write_zeroes(&self) -> bool {
        true
    }

    fn files(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn read(&self, offset: u64, data: Buffers) -> Operation {
        Operation::Io(Io::Read {
            file: NOWHERE,
            buffers: data,
            offset,
        })
    }

    fn write(&self, offset: u64, data: Buffers, _durable: bool) -> Operation {
        Operation::Io(Io::Write {
            file: NOWHERE,
            buffers: data,
            offset,
            flags: 0,
        })
    }

    fn flush(&self) -> Operation {
        Operation::Io(Io::Fsync {
            file: NOWHERE,
            data_only: true,
        })
    }

    fn discard(&self, offset: u64, len: u64) -> Operation {
        Operation::Io(Io::Fallocate {
            file: NOWHERE,
            mode: 0,
            offset,
            len,
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> Operation {
        self.discard(offset, len)
    }

    fn run_now(&self, io: &Io) -> Option<io::Result<u32>> {
        let moved = match io {
            Io::Read { buffers, .. } | Io::Write { buffers, .. } => buffers.len(),
            Io::Fsync { .. } | Io::Fallocate { .. } => 0,
        };
        Some(u32::try_from(moved).map_err(|_| io::ErrorKind::InvalidInput.into()))
    }

    fn instead_of(&self, _refused: &Io) -> Option<Io> {
        None
    }
}
