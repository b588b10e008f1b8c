//! What can be done to a file.

use rustix::fs::FallocateFlags as Flags;

use super::random::Random;

/// Most bytes in a file.
pub const LONGEST: u64 = 256 << 10;
/// Files that bypass the host's page cache too are read and written in such pieces.
pub const SECTOR: u64 = 4096;

/// A range of a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub at: u64,
    pub len: u64,
}

impl Range {
    pub fn end(self) -> u64 {
        self.at + self.len
    }

    pub fn bytes(self) -> std::ops::Range<usize> {
        self.at as usize..self.end() as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// read(2) at the file's position, after lseek(2).
    Read(Range),
    /// pread(2).
    ReadAt(Range),
    /// write(2), likewise.
    Write(Range),
    WriteAt(Range),
    /// By another open file, with `O_APPEND`.
    Append(u64),
    Truncate(u64),
    /// By name, with the file open.
    TruncateByName(u64),
    /// open(2) with `O_TRUNC`.
    Empty,
    MapRead(Range),
    /// With msync(2), or without.
    MapWrite(Range, bool),
    Allocate(Flags, Range),
    /// copy_file_range(2) to this place in the same file.
    CopyWithin(Range, u64),
    /// To another file and back to another place.
    CopyOver(Range, u64),
    /// sendfile(2) likewise.
    Send(Range, u64),
    /// What lseek(2) calls a hole is one.
    Holes(u64),
    Reopen,
    Sync,
    SyncData,
    /// The kernel forgets what it has cached (posix_fadvise(2)).
    Drop,
    Rename,
    /// All of it is read.
    Verify,
}

/// Draws what to do next to a file of `size` bytes. `direct`: aligned, nothing mapped.
pub fn draw(random: &mut Random, size: u64, direct: bool) -> Operation {
    let pieces = if direct { SECTOR } else { 1 };
    let align = |range: Range| {
        let at = range.at / pieces * pieces;
        let len = range.len.next_multiple_of(pieces).min(LONGEST - at);
        Range { at, len }
    };
    // Within the file, across its end, and beyond.
    let end = (size + size / 4 + 64).min(LONGEST - 1);
    let mut range = || {
        let at = random.below(end);
        let len = random.length((LONGEST - at).min(70_000));
        align(Range { at, len })
    };
    let (one, two) = (range(), range());
    let inside = (size > 0).then(|| {
        let at = one.at.min(size - 1);
        let len = one.len.min(size - at);
        Range { at, len }
    });
    let page = |range: Range| Range {
        at: range.at / 4096 * 4096,
        len: range.len.next_multiple_of(4096).min(4 * 4096),
    };
    match (random.below(100), inside) {
        (0..10, _) => Operation::ReadAt(one),
        (10..20, _) => Operation::Read(one),
        (20..32, _) => Operation::WriteAt(one),
        (32..42, _) => Operation::Write(one),
        (42..45, _) if !direct => Operation::Append(two.len.min(LONGEST - size)),
        (45..48, _) => Operation::Truncate(two.at),
        (48..50, _) => Operation::TruncateByName(two.end()),
        (50, _) if random.one_in(8) => Operation::Empty,
        (51..57, Some(range)) if !direct => Operation::MapRead(range),
        (57..65, Some(range)) if !direct => Operation::MapWrite(range, random.one_in(3)),
        (65..67, _) => Operation::Allocate(Flags::empty(), one),
        (67, _) => Operation::Allocate(Flags::KEEP_SIZE, one),
        (68..71, _) => Operation::Allocate(Flags::PUNCH_HOLE | Flags::KEEP_SIZE, one),
        (71..73, _) => Operation::Allocate(Flags::ZERO_RANGE, one),
        (73, _) => Operation::Allocate(Flags::ZERO_RANGE | Flags::KEEP_SIZE, one),
        (74, _) => Operation::Allocate(Flags::COLLAPSE_RANGE, page(one)),
        (75, _) => Operation::Allocate(Flags::INSERT_RANGE, page(one)),
        (76..80, Some(range)) if !direct => Operation::CopyWithin(range, two.at),
        (80..83, Some(range)) if !direct => Operation::CopyOver(range, two.at),
        (83, Some(range)) if !direct => Operation::Send(range, two.at),
        (84..86, _) => Operation::Holes(one.at),
        (86..89, _) => Operation::Reopen,
        (89..91, _) => Operation::Sync,
        (91, _) => Operation::SyncData,
        (92..95, _) => Operation::Drop,
        (95, _) => Operation::Rename,
        (96..98, _) => Operation::Verify,
        _ => Operation::ReadAt(two),
    }
}
