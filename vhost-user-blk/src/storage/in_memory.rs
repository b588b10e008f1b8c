//! Files that are kept in memory (tmpfs, ramfs).
//!
//! Nothing but swapping makes a reader or writer of such a file wait, so that the queue's thread does
//! each operation itself: the io_uring would hand every one to a thread of the kernel, because such
//! file systems know no operation without waiting.
//!
//! The file is mapped, and what is known to be there ([`Present`]) is copied from and to the mapping. Any
//! other read or write is a system call: touching a hole through a mapping would give it a page, so that
//! reading a sparse image would fill the host's memory, and would be SIGBUS where there is no room.
//!
//! What is known comes from three sides. The file's extents are listed once, in the background, when it
//! is mapped: with the first front end, for a process that is yet to be closed in has one thread. A write by system call has filled what it touched. And before a hole is punched, what is in
//! it is forgotten. Listing and punching exclude each other, else a hole punched between looking and
//! noting would be noted as data. Between other pairs it may happen that a bit is set for a hole:
//! a write's note after a punch of the same range at the same time, a hole punched by another process. A
//! copy that passed the check may also find a hole that was punched since. All that costs is a page
//! with the right contents, because mapping and system calls see the same memory.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use rustix::fs::{SeekFrom, seek};
use vhost_daemon::queue::Buffers;
use vhost_daemon::sys::MappedFile;
use vhost_daemon::worker::Io;

use super::present::Present;

/// A file in memory and what of it is mapped.
#[derive(Debug)]
pub(super) struct InMemory {
    shared: Arc<Shared>,
    /// Of the file, when it was asked for last.
    size: AtomicU64,
    /// It is being mapped, or is.
    begun: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    file: File,
    writable: bool,
    /// One behind the other from the file's start: the first as the file was opened, the others as it
    /// grew.
    parts: [OnceLock<Part>; MAX_PARTS],
    /// Held while extents are listed and noted, and while a hole is punched.
    holes: Mutex<()>,
}

/// A file that grows more often has the rest served by system calls.
const MAX_PARTS: usize = 16;

/// Parts begin and end at multiples of this, on which any host's pages begin.
const PART_ALIGN: u64 = 65536;

/// No more of a file is mapped: its table of what is there would need more than 32 MiB.
const MAX_MAPPED: u64 = 1 << 40;

#[derive(Debug)]
struct Part {
    /// Where it begins in the file.
    start: u64,
    end: u64,
    mapped: MappedFile,
    present: Present,
    loss_told: AtomicBool,
}

impl InMemory {
    /// Prepares to map `file` of `size` bytes.
    ///
    /// # Errors
    /// dup(2)'s.
    pub(super) fn new(file: &File, size: u64, writable: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            file: file.try_clone()?,
            writable,
            parts: [const { OnceLock::new() }; MAX_PARTS],
            holes: Mutex::new(()),
        });
        Ok(Self {
            shared,
            size: AtomicU64::new(size),
            begun: AtomicBool::new(false),
        })
    }

    /// Maps the file in the background, as far as that can be done. The first call counts.
    pub(super) fn begin(&self) {
        if self.begun.swap(true, Ordering::AcqRel) {
            return;
        }
        let (lister, size) = (self.shared.clone(), self.size.load(Ordering::Acquire));
        let list = move || lister.extend_to(size);
        // Without the thread nothing is mapped, and system calls do all.
        if let Err(error) = thread::Builder::new().name("extents".into()).spawn(list) {
            tracing::warn!(%error, "the image is not mapped");
        }
    }

    /// The file has `size` bytes now: maps what is new.
    pub(super) fn extend_to(&self, size: u64) {
        self.size.store(size, Ordering::Release);
        if self.begun.load(Ordering::Acquire) {
            self.shared.extend_to(size);
        }
    }

    /// Does an operation at once. The result is as from the kernel.
    pub(super) fn run(&self, io: &Io) -> io::Result<u32> {
        let shared = &*self.shared;
        match io {
            Io::Read {
                buffers, offset, ..
            } => match shared.copy(buffers, *offset, MappedFile::copy_to) {
                Some(count) => Ok(count),
                None => shared.call(io),
            },
            Io::Write {
                buffers, offset, ..
            } => match shared.copy(buffers, *offset, MappedFile::copy_from) {
                // Memory has no durability: a flag that asks for it asks for nothing.
                Some(count) => Ok(count),
                None => {
                    let count = shared.call(io)?;
                    shared.each_part(*offset, count.into(), Present::written);
                    Ok(count)
                }
            },
            Io::Fallocate {
                mode, offset, len, ..
            } if mode & libc::FALLOC_FL_PUNCH_HOLE != 0 => {
                let _no_listing = shared.lock_holes();
                shared.each_part(*offset, *len, Present::forget);
                shared.call(io)
            }
            Io::Fallocate { .. } | Io::Fsync { .. } => shared.call(io),
        }
    }
}

impl Shared {
    fn call(&self, io: &Io) -> io::Result<u32> {
        io.run_inline(&[self.file.as_fd()])
    }

    /// Copies between `buffers` and the mapping, if all of the range is known to be there; returns how
    /// many bytes. `None` if it is not, or was lost meanwhile: then nothing is done, or to be done again.
    fn copy(
        &self,
        buffers: &Buffers,
        offset: u64,
        copy: fn(&MappedFile, &Buffers, usize) -> bool,
    ) -> Option<u32> {
        let len = buffers.len() as u64;
        let end = offset.checked_add(len)?;
        let part = self.parts().find(|part| offset < part.end)?;
        if end > part.end {
            return None;
        }
        let at = offset - part.start;
        if !part.present.has(at, len) {
            return None;
        }
        let count = u32::try_from(len).ok()?;
        if copy(&part.mapped, buffers, usize::try_from(at).ok()?) {
            return Some(count);
        }
        part.tell_loss();
        None
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().map_while(OnceLock::get)
    }

    /// Tells the table of each part that the range reaches into.
    fn each_part(&self, offset: u64, len: u64, tell: fn(&Present, u64, u64)) {
        let end = offset.saturating_add(len);
        for part in self.parts() {
            let (from, to) = (offset.max(part.start), end.min(part.end));
            if from < to {
                tell(&part.present, from - part.start, to - from);
            }
        }
    }

    fn lock_holes(&self) -> MutexGuard<'_, ()> {
        self.holes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maps what lies behind the last part, and lists what is there.
    fn extend_to(&self, size: u64) {
        let end = size.min(MAX_MAPPED) / PART_ALIGN * PART_ALIGN;
        match self.map_up_to(end) {
            Ok(Some(start)) => self.list_extents(start, end),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "the image is not mapped: system calls read and write it");
            }
        }
    }

    /// Maps what lies between the last part and `end`; returns where that is, if there is anything.
    fn map_up_to(&self, end: u64) -> io::Result<Option<u64>> {
        let _alone = self.lock_holes();
        let start = self.parts().last().map_or(0, |part| part.end);
        let place = self.parts.iter().find(|place| place.get().is_none());
        let Some(place) = place.filter(|_| start < end) else {
            return Ok(None);
        };
        // Nobody else sets a place without the lock.
        let _ = place.set(Part::map(&self.file, start, end, self.writable)?);
        Ok(Some(start))
    }

    /// Notes what of a range is there. Takes some 10 ms for a GiB in one piece.
    fn list_extents(&self, start: u64, end: u64) {
        let mut at = start;
        while at < end {
            let _no_punching = self.lock_holes();
            // ENXIO: no data behind.
            let Ok(data) = seek(&self.file, SeekFrom::Data(at)) else {
                return;
            };
            let Ok(hole) = seek(&self.file, SeekFrom::Hole(data)) else {
                return;
            };
            let hole = hole.max(data + 1);
            self.each_part(data, hole.min(end).saturating_sub(data), Present::found);
            at = hole;
        }
    }
}

impl Part {
    fn map(file: &File, start: u64, end: u64, writable: bool) -> io::Result<Self> {
        let len = usize::try_from(end - start).map_err(io::Error::other)?;
        Ok(Self {
            start,
            end,
            mapped: MappedFile::new(file, start, len, writable)?,
            present: Present::unknown(end - start),
            loss_told: AtomicBool::new(false),
        })
    }

    /// Says once that the mapping is of no more use, if that is so.
    fn tell_loss(&self) {
        if self.mapped.is_lost() && !self.loss_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the image was cut short, or its file system is full: going on with system calls"
            );
        }
    }
}
