//! qcow2 images by imago, on the queues' io_urings.
//!
//! imago keeps the format's tables and says where the guest's blocks are; blocks go directly between the
//! file and the guest's buffers. What imago itself reads and writes (tables, copies of clusters) goes
//! through memory of ours. An operation of the guest is a [task](crate::tasks).

mod chain;
mod header;
mod host_file;
mod image;
mod layer;
mod reference_counts;
mod sys;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use vhost_daemon::queue::Buffers;
use vhost_daemon::worker::Io;

pub use chain::{BackingFiles, Qcow2Error};
use chain::{Chain, ChainOptions};
pub use header::Refusal;
use image::Image;

use super::{Operation, RawOptions, Storage};
use crate::request::SECTOR;
use crate::tasks::{Task, block_on};

/// How a qcow2 image is opened.
#[derive(Clone, Copy, Debug)]
pub struct Qcow2Options {
    /// As for a raw image. Discards free clusters, and their space.
    pub file: RawOptions,
    /// What the image may stand on.
    pub backing: BackingFiles,
    /// The guest may go on with another process after this one was killed: nothing that was answered
    /// may only be in this one's memory.
    pub outlive_process: bool,
}

/// A disk in a qcow2 image.
pub struct Qcow2Image {
    image: Arc<Image>,
    alignment: usize,
    /// Version 2 knows no clusters of zeroes.
    can_zero: bool,
    can_discard: bool,
}

impl Qcow2Image {
    /// Opens `path` and the images it stands on, and locks them: the image as a raw one would be, the
    /// others shared.
    ///
    /// # Errors
    /// See [`Qcow2Error`].
    pub fn open(path: &Path, options: Qcow2Options) -> Result<Self, Qcow2Error> {
        let chain = Chain::open(
            path,
            ChainOptions {
                read_only: options.file.read_only,
                direct: options.file.direct,
                backing: options.backing,
            },
        )?;
        let writable = !options.file.read_only;
        let can_zero = writable && chain.header.version >= 3;
        let can_discard = can_zero && options.file.discard;
        let mut image = Image::new(chain.access, chain.header.cluster_size, writable);
        image.punch = can_discard && chain.file.can_punch;
        image.keep_tables = options.outlive_process;
        Ok(Self {
            image: Arc::new(image),
            alignment: chain.alignment,
            can_zero,
            can_discard,
        })
    }
}

impl Drop for Qcow2Image {
    fn drop(&mut self) {
        if self.image.writable
            && let Err(error) = block_on(self.image.flush_all())
        {
            tracing::error!(%error, "the image's tables cannot be written");
        }
    }
}

impl Storage for Qcow2Image {
    fn capacity(&self) -> io::Result<u64> {
        let size = self.image.access.size();
        Ok(size - size % SECTOR)
    }

    fn read_only(&self) -> bool {
        !self.image.writable
    }

    fn can_discard(&self) -> bool {
        self.can_discard
    }

    fn can_write_zeroes(&self) -> bool {
        self.can_zero
    }

    fn files(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn read(&self, offset: u64, data: Buffers) -> Operation {
        Operation::Task(Box::pin(self.image.clone().read(offset, data)))
    }

    fn write(&self, offset: u64, data: Buffers, durable: bool) -> Operation {
        Operation::Task(Box::pin(self.image.clone().write(offset, data, durable)))
    }

    fn flush(&self) -> Operation {
        Operation::Task(Box::pin(self.image.clone().flush()))
    }

    fn discard(&self, offset: u64, len: u64) -> Operation {
        Operation::Task(Box::pin(self.image.clone().discard(offset, len)))
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Operation {
        Operation::Task(Box::pin(
            self.image.clone().write_zeroes(offset, len, unmap),
        ))
    }

    fn alignment(&self) -> usize {
        self.alignment
    }

    fn buffer_alignment(&self) -> usize {
        1
    }

    fn settle(&self) -> Option<Task> {
        let flush = || -> Task { Box::pin(self.image.clone().flush()) };
        self.image.writable.then(flush)
    }

    fn can_resize(&self) -> bool {
        false
    }

    fn instead_of(&self, _refused: &Io) -> Option<Io> {
        None
    }
}
