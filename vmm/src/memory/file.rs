//! The guest's memory in a file, as `memory` of a snapshot: the memory below the hole, then what is above
//! it; what was never written is a hole of the file.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsFd;

use rustix::fs::{FallocateFlags, SeekFrom as Find};
use rustix::io::Errno;
use vm_memory::{Bytes, GuestAddress};

use super::{DirtyLog, GuestMemory};
use crate::layout;

/// Bytes at a time.
const PIECE: u64 = 1 << 20;

impl GuestMemory {
    /// Writes all of it into an empty file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, to: &mut File) -> io::Result<()> {
        to.set_len(self.size)?;
        self.each_piece(&self.file, 0..self.size, |address, offset, len| {
            self.copy(to, address, offset, len)
        })
    }

    /// Writes what the log has marked into a file that has all of it as it was, and takes the marks.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_marked(&self, log: &DirtyLog, to: &mut File) -> io::Result<()> {
        for part in self.parts() {
            log.take(&part, |run| self.save_part(&run, to))?;
        }
        Ok(())
    }

    /// Bytes that the log has marked.
    #[must_use]
    pub fn marked(&self, log: &DirtyLog) -> u64 {
        self.parts().map(|part| log.count(&part)).sum()
    }

    /// What was given back since is a hole, so that reading does not take it from the host again.
    fn save_part(&self, part: &Range<u64>, to: &mut File) -> io::Result<()> {
        let Some(start) = self.offset(part.start, part.end - part.start) else {
            return Ok(());
        };
        let end = start + (part.end - part.start);
        let mut saved = start;
        self.each_piece(&self.file, start..end, |address, offset, len| {
            punch(to, saved..offset)?;
            saved = offset + len as u64;
            self.copy(to, address, offset, len)
        })?;
        punch(to, saved..end)
    }

    fn copy(&self, to: &mut File, at: GuestAddress, offset: u64, len: usize) -> io::Result<()> {
        to.seek(SeekFrom::Start(offset))?;
        let written = self.mapped.write_all_volatile_to(at, to, len);
        written.map_err(io::Error::other)
    }

    /// Fills memory that is zero from a file of the same size.
    ///
    /// # Errors
    /// When the file cannot be read, or has another size.
    pub fn load(&self, from: &mut File) -> io::Result<()> {
        let size = from.metadata()?.len();
        if size != self.size {
            let expected = self.size;
            let sentence = format!("it has {size} bytes, and the guest's memory {expected}");
            return Err(io::Error::other(sentence));
        }
        let extents = from.try_clone()?;
        self.each_piece(&extents, 0..self.size, |address, offset, len| {
            from.seek(SeekFrom::Start(offset))?;
            let read = self.mapped.read_exact_volatile_from(address, from, len);
            read.map_err(io::Error::other)
        })
    }

    /// Gives a part of memory back to the host: it is zero afterwards, and takes room again when it is
    /// touched. False where it is not memory, or not one piece of it.
    #[must_use]
    pub fn discard(&self, address: u64, len: u64) -> bool {
        let Some(offset) = self.offset(address, len) else {
            return false;
        };
        let discarded = punch(&self.file, offset..offset + len).is_ok();
        self.mark_dirty(address, len);
        discarded
    }

    /// Where one piece of memory is in the file.
    fn offset(&self, address: u64, len: u64) -> Option<u64> {
        let end = address.checked_add(len).filter(|_| len > 0)?;
        if end <= self.low_end() {
            Some(address)
        } else if address >= layout::HOLE_END && end <= self.high_end() {
            Some(address - layout::HOLE_END + layout::HOLE)
        } else {
            None
        }
    }

    /// Bytes of it that take room on the host.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn resident(&self) -> io::Result<u64> {
        const BLOCK: u64 = 512;
        let blocks = rustix::fs::fstat(&*self.file)?.st_blocks;
        Ok(u64::try_from(blocks).unwrap_or(0) * BLOCK)
    }

    /// Calls `each` with address, offset and length of what `file` has between two offsets, in pieces within
    /// one region.
    fn each_piece(
        &self,
        file: &File,
        part: Range<u64>,
        mut each: impl FnMut(GuestAddress, u64, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut offset = part.start;
        while let Some((start, end)) = next_extent(file, offset, part.end)? {
            offset = start;
            while offset < end {
                let boundary = if offset < layout::HOLE {
                    layout::HOLE
                } else {
                    u64::MAX
                };
                let len = PIECE.min(end - offset).min(boundary - offset);
                let address = GuestAddress(address(offset));
                each(
                    address,
                    offset,
                    usize::try_from(len).map_err(io::Error::other)?,
                )?;
                offset += len;
            }
        }
        Ok(())
    }
}

/// Makes a part of a file a hole, which reads as zero.
fn punch(file: &File, part: Range<u64>) -> io::Result<()> {
    if part.is_empty() {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, flags, part.start, part.end - part.start)?;
    Ok(())
}

fn address(offset: u64) -> u64 {
    if offset < layout::HOLE {
        offset
    } else {
        layout::HOLE_END + (offset - layout::HOLE)
    }
}

/// The next bytes that are there from `from` on, up to `end`; none where nothing comes any more.
fn next_extent(file: &impl AsFd, from: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    if from >= end {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, Find::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that does not tell: all of it is there.
        Err(Errno::INVAL) => return Ok(Some((from, end))),
        Err(error) => return Err(error.into()),
    };
    if start >= end {
        return Ok(None);
    }
    let hole = rustix::fs::seek(file, Find::Hole(start))?;
    Ok(Some((start, hole.min(end))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::memory::{ByteSize, MemoryConfig};

    fn memory() -> GuestMemory {
        GuestMemory::new(MemoryConfig {
            size: ByteSize(4 << 30),
            hugepages: false,
            prefault: false,
        })
        .unwrap()
    }

    #[test]
    fn memory_comes_back_from_a_file_and_holes_stay_holes() {
        let scratch = lab::scratch::Scratch::new("memory").unwrap();
        let (memory, restored) = (memory(), memory());
        let places = [
            0,
            0x1234_5678,
            layout::HOLE - 8,
            layout::HOLE_END,
            layout::HOLE_END + (1 << 29),
        ];
        for place in places {
            memory
                .mapped()
                .write_obj(place ^ 0x5a, GuestAddress(place))
                .unwrap();
        }
        let path = scratch.join("memory");
        memory.save(&mut File::create(&path).unwrap()).unwrap();
        let saved = std::fs::metadata(&path).unwrap();
        assert_eq!(saved.len(), 4 << 30);
        assert!(saved.blocks() * 512 < 1 << 20, "{} blocks", saved.blocks());
        restored.load(&mut File::open(&path).unwrap()).unwrap();
        for place in places {
            let read: u64 = restored.mapped().read_obj(GuestAddress(place)).unwrap();
            assert_eq!(read, place ^ 0x5a, "{place:#x}");
        }
        let used = |memory: &GuestMemory| rustix::fs::fstat(&*memory.file).unwrap().st_blocks;
        assert_eq!(used(&memory), used(&restored));
    }

    /// Whoever writes while it is copied marks it, and the copy becomes what memory is.
    #[test]
    fn what_was_marked_is_copied_again() {
        let scratch = lab::scratch::Scratch::new("memory").unwrap();
        let memory = memory();
        let places = [0x5000, layout::HOLE - 4096, layout::HOLE_END + 0x9000];
        let write = |value: u64| {
            for place in places {
                memory.write(place, &value.to_le_bytes()).unwrap();
            }
        };
        write(1);
        let log = memory.begin_log().unwrap();
        let path = scratch.join("memory");
        let mut file = File::create(&path).unwrap();
        memory.save(&mut file).unwrap();
        write(2);
        let unmarked = GuestAddress(0x20_0000);
        memory.mapped().write_obj(3_u64, unmarked).unwrap();
        assert!(memory.write(layout::HOLE, &[1]).is_err());
        // A page that is given back, and one that never was there.
        assert!(memory.discard(0x5000, 4096));
        memory.mark_dirty(0x7000, 1);
        assert_eq!(memory.marked(&log), 4 * 4096);
        let resident = memory.resident().unwrap();
        memory.save_marked(&log, &mut file).unwrap();
        assert_eq!(memory.marked(&log), 0);
        assert_eq!(memory.resident().unwrap(), resident);
        memory.end_log();
        write(4);
        assert_eq!(memory.marked(&log), 0);
        let copy = super::tests::memory();
        copy.load(&mut File::open(&path).unwrap()).unwrap();
        let read = |place| copy.mapped().read_obj::<u64>(GuestAddress(place)).unwrap();
        assert_eq!(places.map(read), [0, 2, 2]);
        assert_eq!(read(unmarked.0), 0, "the log says what is copied");
    }

    #[test]
    fn a_file_of_another_size_is_refused() {
        let scratch = lab::scratch::Scratch::new("memory").unwrap();
        let path = scratch.file("memory", [0; 100]).unwrap();
        let error = memory().load(&mut File::open(path).unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it has 100 bytes, and the guest's memory 4294967296"
        );
    }
}
