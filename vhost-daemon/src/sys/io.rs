//! Operations for the kernel.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::types::{Fd, Fixed, FsyncFlags};
use io_uring::{opcode, squeue};

use super::Buffers;

/// The file of an operation.
#[derive(Clone, Debug)]
pub enum IoFile {
    /// The file registered at this index with [`Reactor::register_files`].
    Registered(u32),
    /// A file that the operation keeps open.
    Open(Arc<File>),
}

/// One operation for the kernel. It owns its buffers until it is done.
#[derive(Debug)]
pub enum Io {
    /// Reads from `offset` into `buffers`; result: bytes read.
    Read {
        /// The file.
        file: IoFile,
        /// Guest buffers to fill.
        buffers: Buffers,
        /// File offset in bytes.
        offset: u64,
    },
    /// Writes `buffers` at `offset`; result: bytes written.
    Write {
        /// The file.
        file: IoFile,
        /// Guest buffers to write.
        buffers: Buffers,
        /// File offset in bytes.
        offset: u64,
        /// `RWF_*` flags of pwritev2(2).
        flags: i32,
    },
    /// fsync(2), or fdatasync(2) when `data_only`.
    Fsync {
        /// The file.
        file: IoFile,
        /// Whether metadata that no read needs may stay behind.
        data_only: bool,
    },
    /// fallocate(2).
    Fallocate {
        /// The file.
        file: IoFile,
        /// `FALLOC_FL_*` mode.
        mode: i32,
        /// Start in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
}

/// Builds an entry on either kind of file.
macro_rules! on_file {
    ($file:expr, $fd:ident => $build:expr) => {
        match $file {
            IoFile::Registered(index) => {
                let $fd = Fixed(*index);
                $build
            }
            IoFile::Open(file) => {
                let $fd = Fd(file.as_raw_fd());
                $build
            }
        }
    };
}

impl Io {
    /// The submission for it. The kernel works on what it points to until the completion: `self`
    /// must not move or go before that.
    pub(super) fn entry(&self) -> squeue::Entry {
        match self {
            Self::Read {
                file,
                buffers,
                offset,
            } => read_entry(file, buffers.iovecs(), *offset),
            Self::Write {
                file,
                buffers,
                offset,
                flags,
            } => write_entry(file, buffers.iovecs(), *offset, *flags),
            Self::Fsync { file, data_only } => {
                let flags = if *data_only {
                    FsyncFlags::DATASYNC
                } else {
                    FsyncFlags::empty()
                };
                on_file!(file, fd => opcode::Fsync::new(fd).flags(flags).build())
            }
            Self::Fallocate {
                file,
                mode,
                offset,
                len,
            } => {
                on_file!(file, fd => opcode::Fallocate::new(fd, *len).offset(*offset).mode(*mode).build())
            }
        }
    }
}

fn read_entry(file: &IoFile, iovecs: &[libc::iovec], offset: u64) -> squeue::Entry {
    if let [one] = iovecs
        && let Ok(len) = u32::try_from(one.iov_len)
    {
        return on_file!(file, fd => opcode::Read::new(fd, one.iov_base.cast(), len)
            .offset(offset).build());
    }
    let count = u32::try_from(iovecs.len()).unwrap_or(u32::MAX);
    on_file!(file, fd => opcode::Readv::new(fd, iovecs.as_ptr(), count).offset(offset).build())
}

fn write_entry(file: &IoFile, iovecs: &[libc::iovec], offset: u64, flags: i32) -> squeue::Entry {
    if let [one] = iovecs
        && let Ok(len) = u32::try_from(one.iov_len)
    {
        return on_file!(file, fd => opcode::Write::new(fd, one.iov_base.cast(), len)
            .offset(offset).rw_flags(flags).build());
    }
    let count = u32::try_from(iovecs.len()).unwrap_or(u32::MAX);
    on_file!(file, fd => opcode::Writev::new(fd, iovecs.as_ptr(), count)
        .offset(offset).rw_flags(flags).build())
}
