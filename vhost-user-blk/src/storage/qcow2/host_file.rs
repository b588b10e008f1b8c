//! A file of the host in a chain of images.

use std::fs::{File, FileType};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use imago::storage::drivers::CommonStorageHelper;
use rustix::fs::FallocateFlags;
use vhost_daemon::queue::Buffers;
use vhost_daemon::worker::{Io, IoFile};

use crate::storage::file::{self, OpenError, PUNCH, bits};
use crate::tasks::{self, Changes};

/// An open image file: reads and writes that are whole, on the queue's io_uring.
#[derive(Debug)]
pub(super) struct HostFile {
    file: Arc<File>,
    pub(super) path: PathBuf,
    kind: FileType,
    /// Nothing but swapping makes a reader or writer wait (see
    /// [`RawFile`](super::super::RawFile)).
    in_memory: bool,
    /// What direct I/O asks addresses and lengths to be a multiple of; 1 through the page cache.
    pub(super) alignment: usize,
    /// Space of the file can be given back.
    pub(super) can_punch: bool,
    no_zero_range: AtomicBool,
    /// imago's locks on ranges of the file.
    pub(super) blockers: CommonStorageHelper,
    pub(super) changes: Arc<Changes>,
    /// Copies of guest data that imago has made in the file (copy on write), counted.
    copies: AtomicU64,
    /// How many of these are durable.
    durable_copies: AtomicU64,
}

impl HostFile {
    /// Opens and locks a file as [`file::open`] does.
    pub(super) fn open(path: &Path, read_only: bool, direct: bool) -> Result<Self, OpenError> {
        let (file, kind) = file::open(path, read_only, direct)?;
        let mut opened = Self {
            path: path.to_owned(),
            kind,
            in_memory: !direct && file::is_in_memory(&file),
            alignment: if direct {
                file::direct_alignment(&file)
            } else {
                1
            },
            can_punch: false,
            no_zero_range: AtomicBool::new(false),
            blockers: CommonStorageHelper::default(),
            changes: Arc::default(),
            copies: AtomicU64::new(0),
            durable_copies: AtomicU64::new(0),
            file: Arc::new(file),
        };
        let size = opened.size().map_err(|source| OpenError::Open {
            path: path.to_owned(),
            source,
        })?;
        opened.can_punch = !read_only && file::can_punch(&opened.file, kind, size);
        Ok(opened)
    }

    /// Length in bytes as it is now.
    pub(super) fn size(&self) -> io::Result<u64> {
        if self.kind.is_block_device() {
            // The offset of the descriptor is used for nothing else.
            (&*self.file).seek(SeekFrom::End(0))
        } else {
            Ok(self.file.metadata()?.len())
        }
    }

    /// Fills `data` from byte `at`; behind the end of the file there are zeroes. In direct I/O all
    /// is aligned.
    pub(super) async fn read(&self, mut at: u64, mut data: Buffers) -> io::Result<()> {
        while !data.is_empty() {
            let wanted = data.len();
            let io = Io::Read {
                file: self.io_file(),
                buffers: data,
                offset: at,
            };
            let (count, io) = self.run(io).await?;
            let (count, Io::Read { mut buffers, .. }) = (count as usize, io) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            if count >= wanted {
                break;
            }
            buffers.advance(count);
            // A direct read stops in the middle of a block only at the end of the file.
            if count == 0 || !count.is_multiple_of(self.alignment) {
                buffers.zero_front(buffers.len());
                break;
            }
            at += count as u64;
            data = buffers;
        }
        Ok(())
    }

    /// Writes `data` at byte `at`. In direct I/O all is aligned.
    pub(super) async fn write(
        &self,
        mut at: u64,
        mut data: Buffers,
        durable: bool,
    ) -> io::Result<()> {
        let flags = if durable && !self.in_memory {
            libc::RWF_DSYNC
        } else {
            0
        };
        while !data.is_empty() {
            let wanted = data.len();
            let io = Io::Write {
                file: self.io_file(),
                buffers: data,
                offset: at,
                flags,
            };
            let (count, io) = self.run_change(io).await?;
            let (count, Io::Write { mut buffers, .. }) = (count as usize, io) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            if count >= wanted {
                break;
            }
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            buffers.advance(count);
            at += count as u64;
            data = buffers;
        }
        Ok(())
    }

    /// Has a range read as zeroes, without data where the file system can.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where it cannot.
    pub(super) async fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        if !self.no_zero_range.load(Ordering::Relaxed) {
            match self.allocate(FallocateFlags::ZERO_RANGE, offset, len).await {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    self.no_zero_range.store(true, Ordering::Relaxed);
                }
                other => return other,
            }
        }
        self.punch(offset, len).await
    }

    /// Gives the space of a range back; it reads as zeroes then.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the file system cannot.
    pub(super) async fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.allocate(PUNCH, offset, len).await
    }

    async fn allocate(&self, mode: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
        let io = Io::Fallocate {
            file: self.io_file(),
            mode: bits(mode),
            offset,
            len,
        };
        self.run_change(io).await.map(drop)
    }

    /// Makes durable what was written.
    pub(super) async fn sync(&self) -> io::Result<()> {
        let copies = self.copies.load(Ordering::Acquire);
        let io = Io::Fsync {
            file: self.io_file(),
            data_only: true,
        };
        self.run(io).await?;
        self.durable_copies.fetch_max(copies, Ordering::AcqRel);
        Ok(())
    }

    /// A copy of guest data was made.
    pub(super) fn copied(&self) {
        self.copies.fetch_add(1, Ordering::Release);
    }

    /// Waits until every copy made so far is durable. A table that points to a copy must not reach
    /// the disk before it: the only durable version of that data may be the one it replaces.
    pub(super) async fn sync_copies(&self) -> io::Result<()> {
        let copies = self.copies.load(Ordering::Acquire);
        if self.in_memory || self.durable_copies.load(Ordering::Acquire) >= copies {
            return Ok(());
        }
        self.sync().await
    }

    fn io_file(&self) -> IoFile {
        IoFile::Open(self.file.clone())
    }

    async fn run(&self, io: Io) -> io::Result<(u32, Io)> {
        if self.in_memory {
            return tasks::run_here(io);
        }
        tasks::perform(io).await
    }

    async fn run_change(&self, io: Io) -> io::Result<(u32, Io)> {
        if self.in_memory {
            return tasks::run_here(io);
        }
        tasks::perform_change(io, &self.changes).await
    }
}

/// The bytes of a range; what is behind the image's end is zero.
pub(super) fn read(image: &impl FileExt, range: &Range<u64>) -> io::Result<Vec<u8>> {
    let len = usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match image.read_at(&mut bytes[done..], range.start + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
