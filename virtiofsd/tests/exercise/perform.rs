//! Doing it, and comparing what came of it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, seek};

use super::aligned::Aligned;
use super::operation::{Operation, Range, SECTOR};
use super::{Exercise, open};
use crate::mapping::{self, Sharing};

pub(super) type Outcome = Result<(), String>;

pub(super) fn failed(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A file system need not do everything.
fn is_unsupported(error: rustix::io::Errno) -> bool {
    [rustix::io::Errno::OPNOTSUPP, rustix::io::Errno::NOSYS].contains(&error)
}

impl Exercise {
    pub(super) fn perform(&mut self, operation: Operation) -> Outcome {
        match operation {
            Operation::Read(range) => self.read(range, false),
            Operation::ReadAt(range) => self.read(range, true),
            Operation::Write(range) => self.write(range, false),
            Operation::WriteAt(range) => self.write(range, true),
            Operation::Append(len) => self.append(len),
            Operation::Truncate(size) => self.truncate(size, false),
            Operation::TruncateByName(size) => self.truncate(size, true),
            Operation::Empty => self.empty(),
            Operation::MapRead(range) => self.map_read(range),
            Operation::MapWrite(range, sync) => self.map_write(range, sync),
            Operation::Allocate(mode, range) => self.allocate(mode, range),
            Operation::CopyWithin(range, at) => self.copy_within(range, at),
            Operation::CopyOver(range, at) => self.copy_over(range, at),
            Operation::Send(range, at) => self.send(range, at),
            Operation::Holes(at) => self.holes(at),
            Operation::Reopen => {
                self.file = open(&self.path(), self.direct);
                self.check_size()
            }
            Operation::Sync => {
                self.file.sync_all().map_err(failed)?;
                self.check_host()
            }
            Operation::SyncData => self.file.sync_data().map_err(failed),
            Operation::Drop => {
                self.file.sync_data().map_err(failed)?;
                fadvise(&self.file, 0, None, Advice::DontNeed).map_err(failed)
            }
            Operation::Rename => self.rename(),
            Operation::Verify => self.verify(),
        }
    }

    fn same(&self, what: &str, at: u64, found: &[u8], wanted: &[u8]) -> Outcome {
        if found == wanted {
            return Ok(());
        }
        let first = found
            .iter()
            .zip(wanted)
            .position(|(one, other)| one != other);
        let first = first.unwrap_or(found.len().min(wanted.len()));
        let wrong = found.iter().zip(wanted).filter(|(one, other)| one != other);
        Err(format!(
            "{what} at {at}: {} bytes instead of {}, {} of them wrong, from {} on: {:x?} instead of {:x?}",
            found.len(),
            wanted.len(),
            wrong.count(),
            at + first as u64,
            &found[first..found.len().min(first + 8)],
            &wanted[first..wanted.len().min(first + 8)],
        ))
    }

    fn read(&mut self, range: Range, by_position: bool) -> Outcome {
        let mut buffer = Aligned::new(range.len as usize);
        let target = buffer.as_mut();
        let mut got = 0;
        if !by_position {
            self.file.seek(SeekFrom::Start(range.at)).map_err(failed)?;
        }
        while got < target.len() {
            let more = if by_position {
                self.file.read_at(&mut target[got..], range.at + got as u64)
            } else {
                self.file.read(&mut target[got..])
            };
            match more.map_err(failed)? {
                0 => break,
                more => got += more,
            }
            // The next piece would not be aligned.
            if self.direct && got % SECTOR as usize != 0 {
                break;
            }
        }
        let found = &buffer.as_ref()[..got];
        self.same("read", range.at, found, self.model.read(range))
    }

    fn write(&mut self, range: Range, by_position: bool) -> Outcome {
        let content = self.random.bytes(range.len as usize);
        let buffer = Aligned::of(&content);
        if by_position {
            self.file
                .write_all_at(buffer.as_ref(), range.at)
                .map_err(failed)?;
        } else {
            self.file.seek(SeekFrom::Start(range.at)).map_err(failed)?;
            self.file.write_all(buffer.as_ref()).map_err(failed)?;
            let now = self.file.stream_position().map_err(failed)?;
            if now != range.end() {
                return Err(format!("position {now} after a write"));
            }
        }
        self.model.write(range.at, &content);
        Ok(())
    }

    fn append(&mut self, len: u64) -> Outcome {
        let content = self.random.bytes(len as usize);
        let mut file = File::options()
            .append(true)
            .open(self.path())
            .map_err(failed)?;
        file.write_all(&content).map_err(failed)?;
        self.model.write(self.model.size(), &content);
        self.check_size()
    }

    fn truncate(&mut self, size: u64, by_name: bool) -> Outcome {
        if by_name {
            let file = File::options()
                .write(true)
                .open(self.path())
                .map_err(failed)?;
            file.set_len(size).map_err(failed)?;
        } else {
            self.file.set_len(size).map_err(failed)?;
        }
        self.model.resize(size);
        self.check_size()
    }

    fn empty(&mut self) -> Outcome {
        File::create(self.path()).map_err(failed)?;
        self.model.resize(0);
        self.check_size()
    }

    /// A mapping of the whole file; none where there is no page cache.
    fn map(&self, sharing: Sharing) -> Result<Option<mapping::Mapping>, String> {
        let len = self.model.size().next_multiple_of(4096) as usize;
        match mapping::map(&self.file, len, sharing) {
            Ok(mapping) => Ok(Some(mapping)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn map_read(&mut self, range: Range) -> Outcome {
        let Some(mapping) = self.map(Sharing::ReadOnly)? else {
            return Ok(());
        };
        let found = mapping.read(range.at as usize, range.len as usize);
        self.same("mapping", range.at, &found, self.model.read(range))?;
        // What the last page has beyond the end.
        let size = self.model.size() as usize;
        let beyond = mapping.read(size, size.next_multiple_of(4096) - size);
        self.same(
            "mapping beyond the end",
            size as u64,
            &beyond,
            &vec![0; beyond.len()],
        )
    }

    fn map_write(&mut self, range: Range, sync: bool) -> Outcome {
        let Some(mapping) = self.map(Sharing::Shared)? else {
            return Ok(());
        };
        let content = self.random.bytes(range.len as usize);
        mapping.write(range.at as usize, &content);
        if sync {
            mapping.sync().map_err(failed)?;
        }
        self.model.write(range.at, &content);
        Ok(())
    }

    fn allocate(&mut self, mode: FallocateFlags, range: Range) -> Outcome {
        if self
            .refused
            .contains(&Operation::Allocate(mode, Range { at: 0, len: 0 }))
        {
            return Ok(());
        }
        match fallocate(&self.file, mode, range.at, range.len) {
            Ok(()) if self.model.allocate(mode, range) => self.check_size(),
            Ok(()) => Err(format!("{mode:?} of {range:?} was not refused")),
            Err(error) if is_unsupported(error) => {
                self.refused
                    .push(Operation::Allocate(mode, Range { at: 0, len: 0 }));
                Ok(())
            }
            Err(rustix::io::Errno::INVAL) if !self.model.allocate(mode, range) => Ok(()),
            Err(error) => Err(format!("{mode:?} of {range:?}: {error}")),
        }
    }

    /// What was not written back is no hole, though the file system may not know it yet.
    fn holes(&mut self, at: u64) -> Outcome {
        self.file.sync_data().map_err(failed)?;
        let hole = match seek(&self.file, rustix::fs::SeekFrom::Hole(at)) {
            Err(rustix::io::Errno::NXIO) if at >= self.model.size() => return Ok(()),
            hole => hole.map_err(|error| format!("SEEK_HOLE: {error}"))?,
        };
        let data = match seek(&self.file, rustix::fs::SeekFrom::Data(hole)) {
            Err(rustix::io::Errno::NXIO) => self.model.size(),
            data => data.map_err(|error| format!("SEEK_DATA: {error}"))?,
        };
        let range = Range {
            at: hole,
            len: data.saturating_sub(hole),
        };
        let content = self.model.read(range);
        self.same("hole", hole, &vec![0; content.len()], content)
    }

    fn rename(&mut self) -> Outcome {
        self.renamed += 1;
        let before = self.path();
        let stem = self.name.split('.').next().unwrap_or_default();
        self.name = format!("{stem}.{}", self.renamed % 7);
        fs::rename(before, self.path()).map_err(failed)
    }

    pub(super) fn check_size(&self) -> Outcome {
        let size = self.file.metadata().map_err(failed)?.len();
        if size == self.model.size() {
            Ok(())
        } else {
            Err(format!(
                "{size} bytes long instead of {}",
                self.model.size()
            ))
        }
    }

    fn verify(&mut self) -> Outcome {
        self.check_size()?;
        let len = self.model.size().next_multiple_of(SECTOR) + SECTOR;
        self.read(Range { at: 0, len }, true)
    }

    /// What was synced is in the host's file.
    fn check_host(&self) -> Outcome {
        let Some(host) = &self.host else {
            return Ok(());
        };
        let content = fs::read(host.join(&self.name)).map_err(failed)?;
        self.same("the host's file", 0, &content, self.model.content())
    }
}
