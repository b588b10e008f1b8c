//! Content: writing, reading back, holes, mappings, copies.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom as From, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

use super::Transcript;

const MIB: usize = 1 << 20;

pub fn run(t: &mut Transcript) {
    large(t);
    append_and_truncate(t);
    holes(t);
    copies(t);
    unlinked(t);
    direct(t);
}

/// Bytes that are not the same anywhere near.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(len)
    .collect()
}

fn read_write(t: &Transcript, name: &str) -> File {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(t.at(name))
        .unwrap()
}

fn large(t: &mut Transcript) {
    let content = pattern(5 * MIB + 123);
    let mut file = read_write(t, "large");
    t.tried("write 5 MiB", file.write_all(&content));
    t.tried("fsync", file.sync_all());
    t.tried("fdatasync", file.sync_data());
    t.tried(
        "fsync of the directory",
        File::open(t.at("")).and_then(|dir| dir.sync_all()),
    );
    drop(file);
    t.note(
        "read back",
        fs::read(t.at("large")).is_ok_and(|read| read == content),
    );
    let file = read_write(t, "large");
    t.tried(
        "rewrite in the middle",
        file.write_all_at(b"middle", 3_000_001),
    );
    let mut part = [0; 8];
    t.tried("read there", file.read_exact_at(&mut part, 3_000_000));
    t.note(
        "what is there",
        part[1..7] == *b"middle" && part[0] == content[3_000_000],
    );
    t.note(
        "read past the end",
        file.read_at(&mut part, content.len() as u64 + 9).ok(),
    );
    t.note(
        "read across the end",
        file.read_at(&mut part, content.len() as u64 - 3).ok(),
    );
}

fn append_and_truncate(t: &mut Transcript) {
    let mut log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(t.at("log"))
        .unwrap();
    let mut other = OpenOptions::new().append(true).open(t.at("log")).unwrap();
    for n in 0..5 {
        writeln!(log, "one {n}").unwrap();
        writeln!(other, "two {n}").unwrap();
    }
    t.note("two appenders", fs::read_to_string(t.at("log")).ok());
    t.tried("truncate while open to append", log.set_len(4));
    log.write_all(b"end").unwrap();
    t.note("after it", fs::read_to_string(t.at("log")).ok());
    t.tried("grow", log.set_len(5000));
    t.note(
        "size and zeros",
        fs::read(t.at("log")).map(|b| (b.len(), b[100])).ok(),
    );
    t.tried("truncate on open", File::create(t.at("log")));
    t.note("empty", fs::metadata(t.at("log")).unwrap().len());
    t.tried(
        "write to what is open to read",
        File::open(t.at("log")).unwrap().write_all(b"x"),
    );
}

fn holes(t: &mut Transcript) {
    let file = read_write(t, "sparse");
    let page = pattern(4096);
    file.write_all_at(&page, 4 << 20).unwrap();
    t.note("size", file.metadata().unwrap().len());
    t.note("mostly hole", file.metadata().unwrap().blocks() < 64);
    let at = |position| {
        seek(&file, position)
            .map_err(std::io::Error::from)
            .map_err(|e| e.raw_os_error())
    };
    t.note("data", at(SeekFrom::Data(0)));
    t.note("hole", at(SeekFrom::Hole(0)));
    t.note("hole after the data", at(SeekFrom::Hole(4 << 20)));
    t.note("data after the end", at(SeekFrom::Data(5 << 20)));
    t.tried(
        "allocate",
        fallocate(&file, FallocateFlags::empty(), 0, 1 << 20),
    );
    t.note("size as it was", file.metadata().unwrap().len());
    t.tried(
        "allocate beyond",
        fallocate(&file, FallocateFlags::KEEP_SIZE, 6 << 20, 4096),
    );
    t.note("size kept", file.metadata().unwrap().len());
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    t.tried("punch", fallocate(&file, punch, (4 << 20) + 1000, 1000));
    let mut back = vec![0; 4096];
    file.read_exact_at(&mut back, 4 << 20).unwrap();
    t.note(
        "punched",
        back[1000..2000].iter().all(|b| *b == 0) && back[2000..] == page[2000..],
    );
    t.tried(
        "punch without keeping the size",
        fallocate(&file, FallocateFlags::PUNCH_HOLE, 0, 9),
    );
    t.tried(
        "allocate nothing",
        fallocate(&file, FallocateFlags::empty(), 0, 0),
    );
}

fn copies(t: &mut Transcript) {
    let content = pattern(300_000);
    fs::write(t.at("from"), &content).unwrap();
    let (from, to) = (read_write(t, "from"), read_write(t, "to"));
    let (mut read_at, mut write_at, mut left) = (1000, 5, 250_000);
    while left > 0 {
        let copied =
            rustix::fs::copy_file_range(&from, Some(&mut read_at), &to, Some(&mut write_at), left);
        match copied {
            Ok(0) => break,
            Ok(copied) => left -= copied,
            Err(error) => return t.tried("copy_file_range", Err::<(), _>(error)),
        }
    }
    let copy = fs::read(t.at("to")).unwrap();
    t.note(
        "copied",
        (copy.len(), copy[5..] == content[1000..251_000], &copy[..5]),
    );
}

fn unlinked(t: &mut Transcript) {
    let mut file = read_write(t, "gone");
    fs::remove_file(t.at("gone")).unwrap();
    t.tried("write to what has no name", file.write_all(b"still here"));
    t.tried("rewind", file.seek(From::Start(6)));
    let mut rest = String::new();
    t.tried("read it", file.read_to_string(&mut rest));
    t.note("what it says", rest);
    t.note(
        "its links and size",
        file.metadata().map(|s| (s.nlink(), s.len())).ok(),
    );
    t.tried("truncate it", file.set_len(2));
    t.note("its size", file.metadata().map(|s| s.len()).ok());
}

fn direct(t: &mut Transcript) {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_SYNC)
        .open(t.at("synchronous"));
    let Ok(file) = opened else {
        return t.tried("open with O_SYNC", opened);
    };
    t.tried(
        "synchronous write",
        file.write_all_at(&pattern(70_000), 12_345),
    );
    t.note("its size", file.metadata().unwrap().len());
}
