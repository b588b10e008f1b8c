//! Mappings of files, beside reads and writes of the same bytes.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;

use super::Transcript;
use crate::mapping::{self, Mapping, Sharing};

const LEN: usize = 16384;

/// All lines of it begin with "mapped": without a page cache there are no shared, writable mappings.
pub fn run(t: &mut Transcript) {
    let path = t.at("mapped-file");
    fs::write(&path, vec![b'.'; LEN]).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mapped = mapping::map(&file, LEN, Sharing::Shared);
    t.tried("mapped shared", mapped.as_ref().map(drop).map_err(copy));
    if let Ok(shared) = mapped {
        coherent(t, &file, shared);
    }
    let private = mapping::map(&file, LEN, Sharing::Private).unwrap();
    file.write_all_at(b"before", 8192).unwrap();
    t.note("private, before it is written", private.read(8192, 6));
    private.write(8192, b"own");
    t.note("private, its own", private.read(8192, 6));
    t.note("private, in the file", at(&file, 8192, 6));
    drop(private);
    let only_read = mapping::map(&File::open(&path).unwrap(), LEN, Sharing::ReadOnly);
    fs::remove_file(&path).unwrap();
    drop(file);
    let read = only_read.map(|mapping| mapping.read(8190, 10));
    t.note("mapped to read, then removed and closed", read.ok());
}

fn copy(error: &std::io::Error) -> std::io::Error {
    std::io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(0))
}

fn at(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

fn coherent(t: &mut Transcript, file: &File, shared: Mapping) {
    file.write_all_at(b"written", 100).unwrap();
    t.note("mapped, sees a write", shared.read(98, 11));
    shared.write(200, b"stored");
    t.note("mapped, seen by a read", at(file, 198, 10));
    let other = File::open(t.at("mapped-file")).unwrap();
    t.note(
        "mapped, seen through another open file",
        at(&other, 198, 10),
    );
    let second = mapping::map(file, LEN, Sharing::Shared).unwrap();
    shared.write(4090, b"across pages");
    t.note("mapped twice, seen by the other", second.read(4088, 16));
    t.tried("mapped, synced", shared.sync());
    file.set_len(5000).unwrap();
    file.set_len(LEN as u64).unwrap();
    t.note("mapped, cut off and grown", second.read(4990, 20));
    shared.write(12000, b"last");
    drop((shared, second));
    let mut content = Vec::new();
    File::open(t.at("mapped-file"))
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    t.note(
        "mapped, after all",
        (content.len(), content[12000..12004].to_vec(), content[5000]),
    );
}
