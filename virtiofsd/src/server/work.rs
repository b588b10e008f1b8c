//! Data that are left to move once a request has been dispatched.

use std::fs::File;
use std::io::Result;
use std::sync::Arc;

use fuse_backend_rs::abi::fuse_abi::{READ_LOCKOWNER, WRITE_LOCKOWNER};
use fuse_backend_rs::api::filesystem::{Context, ZeroCopyReader, ZeroCopyWriter};

use super::Server;
use crate::file_system::GuestFileSystem;
use crate::fuse::abi::{ReadIn, WriteIn};
use crate::medium::HostFile;
use crate::write_mode::WriteMode;

/// What is left to do for a request once it has been dispatched.
#[derive(Debug)]
pub enum Work {
    /// Nothing: the reply's body is whole.
    Replied,
    /// Nothing, and there is no reply.
    Silent,
    /// All of it: the request may wait long, and was only looked at. It is to be served again by a
    /// thread that may wait.
    Elsewhere,
    /// All of it: the request waits for someone else (a lock), and is to be served again later.
    Blocked,
    /// Read up to `size` bytes of the file into the guest's buffers.
    Read {
        /// The host's file.
        file: HostFile,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        size: u32,
    },
    /// Write `size` bytes out of the guest's buffers.
    Write {
        /// The host's file.
        file: HostFile,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        size: u32,
        /// How.
        mode: WriteMode,
    },
    /// Bring the file to stable storage.
    Sync {
        /// The host's file.
        file: Arc<File>,
        /// Only what reading the data needs.
        data_only: bool,
    },
    /// fallocate(2).
    Allocate {
        /// The host's file.
        file: Arc<File>,
        /// `FALLOC_FL_*`.
        mode: u32,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Read through the `FileSystem` trait: [`Server::copy_out`].
    CopyOut(CopyOut),
    /// Write through the `FileSystem` trait: [`Server::copy_in`].
    CopyIn(CopyIn),
}

/// A read that the `FileSystem` itself carries out.
#[derive(Clone, Copy, Debug)]
pub struct CopyOut {
    pub(super) context: Context,
    pub(super) inode: u64,
    pub(super) input: ReadIn,
    /// How many bytes at most.
    pub size: u32,
}

/// A write that the `FileSystem` itself carries out.
#[derive(Clone, Copy, Debug)]
pub struct CopyIn {
    pub(super) context: Context,
    pub(super) inode: u64,
    pub(super) input: WriteIn,
    /// How.
    pub mode: WriteMode,
}

impl CopyIn {
    /// How many bytes.
    pub fn size(&self) -> u32 {
        self.input.size
    }
}

impl<F: GuestFileSystem> Server<F> {
    /// Carries a read out; returns how many bytes went into `data`.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn copy_out(&self, copy: &CopyOut, data: &mut dyn ZeroCopyWriter) -> Result<usize> {
        let input = &copy.input;
        let owner = (input.read_flags & READ_LOCKOWNER != 0).then_some(input.lock_owner);
        self.file_system.read(
            &copy.context,
            copy.inode,
            input.fh,
            data,
            copy.size,
            input.offset,
            owner,
            input.flags,
        )
    }

    /// Carries a write out, or what is left of it when `done` bytes were written and `data` are those behind
    /// them; returns how many of them went into the file.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn copy_in(
        &self,
        copy: &CopyIn,
        done: u32,
        data: &mut dyn ZeroCopyReader,
    ) -> Result<usize> {
        let input = &copy.input;
        let owner = (input.fuse_flags & WRITE_LOCKOWNER != 0).then_some(input.lock_owner);
        self.file_system.write(
            &copy.context,
            copy.inode,
            input.fh,
            data,
            input.size.saturating_sub(done),
            input.offset.saturating_add(done.into()),
            owner,
            copy.mode.delayed,
            input.flags,
            input.fuse_flags,
        )
    }
}
