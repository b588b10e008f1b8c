//! Listing directories: positions, what comes and goes meanwhile, types and numbers.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, SeekFrom, mknodat, open, seek};

use super::Transcript;

pub fn run(t: &mut Transcript) {
    let at = t.at("listing");
    fs::create_dir(&at).unwrap();
    kinds(t, &at.join("kinds"));
    positions(t, &at.join("positions"));
    meanwhile(t, &at.join("meanwhile"));
    removal(t, &at.join("removal"));
    long_names(t, &at.join("long"));
}

fn directory(path: &Path) -> File {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    open(path, flags, Mode::empty()).map(File::from).unwrap()
}

/// One entry: its name, the position after it, its number, its type.
type Listed = (String, u64, u64, FileType);

/// Up to `most` entries from where `directory` is, read `room` bytes at a time.
fn entries(directory: &File, room: usize, most: usize) -> Vec<Listed> {
    let mut buffer = vec![MaybeUninit::uninit(); room];
    let mut list = RawDir::new(directory, &mut buffer);
    let mut listed = Vec::new();
    while listed.len() < most
        && let Some(entry) = list.next()
    {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        listed.push((
            name,
            entry.next_entry_cookie(),
            entry.ino(),
            entry.file_type(),
        ));
    }
    listed
}

fn kinds(t: &mut Transcript, at: &Path) {
    fs::create_dir(at).unwrap();
    fs::write(at.join("file"), "").unwrap();
    fs::create_dir(at.join("dir")).unwrap();
    symlink("x", at.join("link")).unwrap();
    mknodat(CWD, at.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    mknodat(CWD, at.join("socket"), FileType::Socket, Mode::RWXU, 0).unwrap();
    mknodat(
        CWD,
        at.join("char"),
        FileType::CharacterDevice,
        Mode::RWXU,
        0x0103,
    )
    .unwrap();
    mknodat(
        CWD,
        at.join("block"),
        FileType::BlockDevice,
        Mode::RWXU,
        0x0700,
    )
    .unwrap();
    let mut listed = entries(&directory(at), 32768, usize::MAX);
    listed.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, _, number, kind) in &listed {
        let status = fs::symlink_metadata(at.join(name)).unwrap();
        t.note(&format!("type of {name}"), (kind, status.ino() == *number));
    }
    t.note("room for no entry", {
        let mut buffer = [MaybeUninit::uninit(); 20];
        let dir = directory(at);
        RawDir::new(&dir, &mut buffer)
            .next()
            .map(|entry| entry.err().map(|e| e.raw_os_error()))
    });
}

fn positions(t: &mut Transcript, at: &Path) {
    fs::create_dir(at).unwrap();
    for n in 0..300 {
        fs::write(at.join(format!("entry-{n:03}")), "").unwrap();
    }
    let dir = directory(at);
    let all = entries(&dir, 32768, usize::MAX);
    t.note("all", all.len());
    t.note("at the end", entries(&dir, 1000, usize::MAX).len());
    seek(&dir, SeekFrom::Start(0)).unwrap();
    let again = entries(&dir, 200, usize::MAX);
    t.note("the same, a few at a time", names(&again) == names(&all));
    // From each position on comes what came after it.
    let right = [0, 1, 2, 57, 150, 300].map(|n| {
        seek(&dir, SeekFrom::Start(all[n].1)).unwrap();
        names(&entries(&dir, 500, 20)) == names(&all[n + 1..(n + 21).min(all.len())])
    });
    t.note("from positions", right);
    let (one, two) = (directory(at), dir.try_clone().unwrap());
    seek(&two, SeekFrom::Start(all[9].1)).unwrap();
    t.note(
        "another open directory starts at the start",
        names(&entries(&one, 300, 3)) == names(&all[..3]),
    );
    t.note(
        "a clone goes on",
        names(&entries(&dir, 300, 3)) == names(&all[10..13]),
    );
}

fn names(listed: &[Listed]) -> Vec<&str> {
    listed.iter().map(|(name, ..)| name.as_str()).collect()
}

/// What was there all the time is listed exactly once, whatever comes and goes.
fn meanwhile(t: &mut Transcript, at: &Path) {
    fs::create_dir(at).unwrap();
    let stays: BTreeSet<String> = (0..120).map(|n| format!("stays-{n:03}")).collect();
    for name in &stays {
        fs::write(at.join(name), "").unwrap();
        fs::write(at.join(format!("goes-{name}")), "").unwrap();
    }
    let dir = directory(at);
    let (mut seen, mut round, mut strange) = (Vec::new(), 0, 0);
    loop {
        // The buffer goes with each call: what was read but not used would be lost.
        let mut buffer = [MaybeUninit::uninit(); 1200];
        let mut list = RawDir::new(&dir, &mut buffer);
        let mut batch = Vec::new();
        while let Some(entry) = list.next() {
            batch.push(entry.unwrap().file_name().to_string_lossy().into_owned());
            if list.is_buffer_empty() {
                break;
            }
        }
        if batch.is_empty() {
            break;
        }
        for name in batch {
            match name.split('-').next() {
                Some("stays") => seen.push(name),
                Some("goes") => drop(fs::remove_file(at.join(name))),
                Some("new" | "." | ".." | "moved") => {}
                _ => strange += 1,
            }
        }
        let _ = fs::write(at.join(format!("new-{round}")), "");
        let _ = fs::rename(
            at.join(format!("goes-stays-{:03}", 119 - round % 120)),
            at.join(format!("moved-{round}")),
        );
        round += 1;
    }
    let once: BTreeSet<String> = seen.iter().cloned().collect();
    t.note(
        "what stays is listed once",
        (once == stays, seen.len() == stays.len(), strange),
    );
    t.note(
        "and afterwards",
        fs::read_dir(at)
            .unwrap()
            .filter(|entry| {
                entry
                    .as_ref()
                    .is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("stays"))
            })
            .count(),
    );
}

/// As rm does it: list, remove what was listed, list on, until nothing is left.
fn removal(t: &mut Transcript, at: &Path) {
    fs::create_dir(at).unwrap();
    for n in 0..150 {
        fs::write(at.join(format!("file-with-a-rather-long-name-{n}")), "").unwrap();
    }
    let (dir, mut rounds, mut left) = (directory(at), 0, usize::MAX);
    while left > 0 && rounds < 600 {
        let listed = entries(&dir, 700, 15);
        for (name, ..) in &listed {
            let _ = fs::remove_file(at.join(name));
        }
        if listed.is_empty() {
            seek(&dir, SeekFrom::Start(0)).unwrap();
            left = entries(&dir, 32768, usize::MAX).len().saturating_sub(2);
            seek(&dir, SeekFrom::Start(0)).unwrap();
        }
        rounds += 1;
    }
    t.note("all removed", left);
    t.tried("the directory too", fs::remove_dir(at));
    let mut buffer = [MaybeUninit::uninit(); 1000];
    let mut list = RawDir::new(&dir, &mut buffer);
    let first = list
        .next()
        .map(|entry| entry.err().map(|errno| errno.raw_os_error()));
    t.note("what is listed of it", first);
}

fn long_names(t: &mut Transcript, at: &Path) {
    fs::create_dir(at).unwrap();
    let all: BTreeSet<String> = (0..60)
        .map(|n| format!("{n:03}{}", "\u{fc}".repeat(126)))
        .collect();
    for name in &all {
        fs::create_dir(at.join(name)).unwrap();
    }
    let listed: BTreeSet<String> = fs::read_dir(at)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    t.note("names of 255 bytes", listed == all);
    t.note("links", fs::metadata(at).unwrap().nlink());
}
