//! Parts of files: holes, ranges that are freed or taken out, copies between files.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom as From, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{FallocateFlags as Flags, SeekFrom, copy_file_range, fallocate, seek, sendfile};

use super::Transcript;

const PAGE: u64 = 4096;

pub fn run(t: &mut Transcript) {
    fs::create_dir(t.at("ranges")).unwrap();
    seeking(t);
    freeing(t);
    taking_out(t);
    limits(t);
    copying(t);
    sending(t);
}

fn file(t: &Transcript, name: &str) -> File {
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(true);
    options.open(t.at("ranges").join(name)).unwrap()
}

fn sum(file: &File) -> (u64, u64) {
    let mut content = Vec::new();
    let mut reader = file;
    reader.rewind().unwrap();
    reader.read_to_end(&mut content).unwrap();
    let sum = content.iter().zip(1_u64..).fold(0_u64, |sum, (byte, n)| {
        sum.wrapping_add(n.wrapping_mul(u64::from(*byte)))
    });
    (content.len() as u64, sum)
}

fn pages(file: &File, count: u8) {
    for page in 0..count {
        let content = [page + 1; PAGE as usize];
        file.write_all_at(&content, u64::from(page) * PAGE).unwrap();
    }
}

fn seeking(t: &mut Transcript) {
    let file = file(t, "seek");
    let at = |position| seek(&file, position).map_err(|errno| errno.raw_os_error());
    t.note("data of nothing", at(SeekFrom::Data(0)));
    t.note("hole of nothing", at(SeekFrom::Hole(0)));
    file.set_len(3 * PAGE).unwrap();
    t.note("data of a hole", at(SeekFrom::Data(0)));
    t.note("hole of a hole", at(SeekFrom::Hole(PAGE)));
    file.write_all_at(b"x", PAGE).unwrap();
    file.sync_all().unwrap();
    t.note("data in the middle", at(SeekFrom::Data(0)));
    t.note("data from within", at(SeekFrom::Data(PAGE + 5)));
    t.note("hole behind", at(SeekFrom::Hole(PAGE + 5)));
    t.note("data behind", at(SeekFrom::Data(2 * PAGE)));
    t.note("hole at the end", at(SeekFrom::Hole(3 * PAGE)));
    t.note("data at the end", at(SeekFrom::Data(3 * PAGE)));
    t.note("from the end", at(SeekFrom::End(-1)));
    t.note("before the start", at(SeekFrom::End(-100_000)));
    t.note("very far", at(SeekFrom::Start(1 << 40)));
    t.note("read there", (&file).read(&mut [0; 9]).ok());
}

fn freeing(t: &mut Transcript) {
    let file = file(t, "free");
    pages(&file, 8);
    let free = |mode: Flags, offset, len| fallocate(&file, mode, offset, len);
    let punch = Flags::PUNCH_HOLE | Flags::KEEP_SIZE;
    t.tried("punch whole pages", free(punch, PAGE, 2 * PAGE));
    t.note("is", sum(&file));
    t.tried("punch parts", free(punch, 4 * PAGE + 100, PAGE));
    t.note("is", sum(&file));
    t.tried("punch past the end", free(punch, 7 * PAGE, 10 * PAGE));
    t.note("is", sum(&file));
    t.tried("punch beyond the end", free(punch, 100 * PAGE, PAGE));
    t.note("is", sum(&file));
    file.sync_all().unwrap();
    t.note("blocks freed", file.metadata().unwrap().blocks() < 8 * 8);
    t.tried(
        "read-only",
        fallocate(File::open(t.at("ranges/free")).unwrap(), punch, 0, PAGE),
    );
}

fn taking_out(t: &mut Transcript) {
    let file = file(t, "out");
    pages(&file, 8);
    let change = |mode: Flags, offset, len| fallocate(&file, mode, offset, len);
    // Lines that begin so differ: Linux's FUSE has no such request.
    t.tried(
        "collapse a range",
        change(Flags::COLLAPSE_RANGE, PAGE, PAGE),
    );
    t.note("collapsed", sum(&file));
    t.tried("insert a range", change(Flags::INSERT_RANGE, PAGE, PAGE));
    t.note("inserted", sum(&file));
    pages(&file, 8);
    file.set_len(8 * PAGE).unwrap();
    t.tried("zero a range", change(Flags::ZERO_RANGE, PAGE + 1, PAGE));
    t.note("zeroed", sum(&file));
    t.tried(
        "zero a range past the end",
        change(Flags::ZERO_RANGE, 7 * PAGE, 2 * PAGE),
    );
    t.note("zeroed", sum(&file));
    t.tried(
        "zero a range and keep the size",
        change(Flags::ZERO_RANGE | Flags::KEEP_SIZE, 0, 20 * PAGE),
    );
    t.note("zeroed", sum(&file));
}

fn limits(t: &mut Transcript) {
    let file = file(t, "limits");
    t.tried("longer than any file", file.set_len(1 << 63));
    t.tried(
        "write where no file is",
        file.write_at(b"x", i64::MAX as u64),
    );
    t.tried(
        "allocate where no file is",
        fallocate(&file, Flags::empty(), i64::MAX as u64, 1),
    );
    t.tried("write at the negative", file.write_at(b"x", u64::MAX));
    t.tried("read at the negative", file.read_at(&mut [0], u64::MAX));
    t.tried("write nothing far away", file.write_at(b"", 1 << 30));
    t.note("its length", file.metadata().unwrap().len());
    t.tried("truncate a directory", rustix_truncate(&t.at("ranges")));
    t.tried("truncate by name", rustix_truncate(&t.at("ranges/limits")));
    t.tried("truncate nothing", rustix_truncate(&t.at("ranges/no")));
    t.tried(
        "truncate what is open to read",
        File::open(t.at("ranges/limits")).unwrap().set_len(1),
    );
}

fn rustix_truncate(path: &std::path::Path) -> std::io::Result<()> {
    File::options().write(true).open(path)?.set_len(77)
}

fn copying(t: &mut Transcript) {
    let (from, to) = (file(t, "from"), file(t, "to"));
    pages(&from, 6);
    let copy = |from: &File, mut at, to: &File, mut target, len| {
        copy_file_range(from, Some(&mut at), to, Some(&mut target), len)
            .map_err(|errno| errno.raw_os_error())
    };
    t.note("copy pages", copy(&from, PAGE, &to, 0, 2 * PAGE as usize));
    t.note("is", sum(&to));
    t.note("copy oddly", copy(&from, 4000, &to, 4097, 5001));
    t.note("is", sum(&to));
    t.note(
        "copy past the end",
        copy(&from, 5 * PAGE + 96, &to, 9, 100_000),
    );
    t.note("copy from beyond", copy(&from, 100 * PAGE, &to, 0, 10));
    t.note("copy nothing", copy(&from, 0, &to, 0, 0));
    t.note("leaving a hole", copy(&from, 0, &to, 20 * PAGE, 10));
    t.note("is", sum(&to));
    t.note("within a file", copy(&to, 0, &to, 2 * PAGE, 100));
    t.note("onto itself, overlapping", copy(&to, 0, &to, 50, 100));
    t.note("is", sum(&to));
    let read_only = File::open(t.at("ranges/to")).unwrap();
    t.note("to what is open to read", copy(&from, 0, &read_only, 0, 10));
    let append = File::options()
        .append(true)
        .open(t.at("ranges/to"))
        .unwrap();
    t.note("to what appends", copy(&from, 0, &append, 0, 10));
    let dir = File::open(t.at("ranges")).unwrap();
    t.note("from a directory", copy(&dir, 0, &to, 0, 10));
    let large = file(t, "large");
    large.set_len(70 << 20).unwrap();
    t.note("copy 70 MiB in one go", copy(&large, 0, &to, 0, 70 << 20));
    let by_position = copy_file_range(&from, None, &to, None, 10);
    t.note(
        "by the files' own positions",
        by_position.map_err(|e| e.raw_os_error()),
    );
}

fn sending(t: &mut Transcript) {
    let (from, mut to) = (file(t, "send-from"), file(t, "send-to"));
    pages(&from, 3);
    let mut offset = 1000;
    t.note("send", sendfile(&to, &from, Some(&mut offset), 6000).ok());
    t.note("went on to", offset);
    t.note("is", sum(&to));
    to.seek(From::Start(100)).unwrap();
    t.note(
        "send from the end",
        sendfile(&to, &from, Some(&mut (3 * PAGE)), 10).ok(),
    );
    let (read, write) = rustix::pipe::pipe().unwrap();
    File::from(write).write_all(&[9; 5000]).unwrap();
    let spliced = rustix::pipe::splice(
        &read,
        None,
        &to,
        None,
        5000,
        rustix::pipe::SpliceFlags::empty(),
    );
    t.note("splice from a pipe", spliced.ok());
    t.note("is", sum(&to));
    let (read, write) = rustix::pipe::pipe().unwrap();
    let spliced = rustix::pipe::splice(
        &from,
        Some(&mut 5000),
        &write,
        None,
        3000,
        rustix::pipe::SpliceFlags::empty(),
    );
    t.note("splice into a pipe", spliced.ok());
    drop(write);
    let mut content = Vec::new();
    File::from(read).read_to_end(&mut content).unwrap();
    t.note(
        "came out",
        (
            content.len(),
            content.first().copied(),
            content.last().copied(),
        ),
    );
}
