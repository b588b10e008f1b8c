//! A tree of many files, and a guest that walks it and forgets nothing.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the test and the measurement use a part of it each"
)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::frontend::fs::{Caller, Fs};
use lab::scratch::Scratch;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use virtiofsd::fuse::Opcode;

use crate::share::Share;
use crate::share::session::{ENTRY, OPEN, ROOT, Session, number, transfer, words};
use lab::inside::Process;

/// Files in a directory, and directories in a directory.
const IN_A_DIRECTORY: usize = 1000;
const BRANCHES: usize = 20;

/// Room for a reply to READDIRPLUS: what a guest's kernel asks for.
const LISTING: u32 = 128 << 10;

/// One file in so many is used again after the walk.
const USED_AGAIN: usize = 97;

/// Makes `files` empty files in directories below directories.
pub fn make_tree(at: &Path, files: usize) {
    for directory in 0..files.div_ceil(IN_A_DIRECTORY) {
        let below = at.join(format!("branch-{}", directory % BRANCHES));
        let below = below.join(format!("directory-{directory}"));
        fs::create_dir_all(&below).unwrap();
        let count = IN_A_DIRECTORY.min(files - directory * IN_A_DIRECTORY);
        for n in 0..count {
            let mode = Mode::from_raw_mode(0o644);
            let file = below.join(format!("file-{n}"));
            mknodat(CWD, file, FileType::RegularFile, mode, 0).unwrap();
        }
    }
}

/// What a walk came to.
#[derive(Clone, Copy, Debug)]
pub struct Walked {
    /// Files and directories found.
    pub nodes: usize,
    /// Most descriptors that the daemon had open at a time.
    pub most_open: usize,
    /// How long it took.
    pub took: Duration,
    /// How long it took for each of those that were used again.
    pub again: Duration,
    /// What the daemon's memory grew by, in bytes for each node.
    pub bytes_per_node: usize,
}

/// Starts a daemon with `options` on a tree of `files` in memory, and walks it.
pub fn walk(test: &str, files: usize, options: &[&str]) -> Walked {
    let scratch = Scratch::in_memory(test).unwrap();
    make_tree(scratch.path(), files);
    let share = Share::start_on(test, scratch.path(), |daemon| daemon.args(options));
    let (_front_end, mut fs) = share.mounted();
    let daemon = Process::serving(&share.daemon);
    let before = resident(&daemon);
    let start = Instant::now();
    let (nodes, mut most_open) = walk_all(&mut fs, &daemon);
    let took = start.elapsed();
    let bytes_per_node = (resident(&daemon) - before) / nodes.len();
    let start = Instant::now();
    let used: Vec<_> = nodes.iter().copied().step_by(USED_AGAIN).collect();
    for (node, is_directory) in &used {
        use_again(&mut fs, *node, *is_directory);
    }
    let again = start.elapsed() / u32::try_from(used.len()).unwrap();
    most_open = most_open.max(daemon.descriptors().len());
    Walked {
        nodes: nodes.len(),
        most_open,
        took,
        again,
        bytes_per_node,
    }
}

/// Makes and removes files with names of 255 bytes, as the hostile do: the node of each stays. Ends with
/// the errno of the first that cannot be made, and how many could.
pub fn make_and_remove(fs: &mut Fs, files: usize) -> (usize, i32) {
    let arguments = words(&[libc::O_RDWR.cast_unsigned(), 0o100_600, 0, 0]);
    for made in 0..files {
        let name = format!("{made:0255}\0");
        let mut session = Session(fs);
        let body: &[&[u8]] = &[&arguments, name.as_bytes()];
        let created = session.call(Opcode::Create, ROOT, body, ENTRY + OPEN);
        if created.error != 0 {
            return (made, -created.error);
        }
        let file = (number(&created.body, 0), number(&created.body, ENTRY));
        let removed = session.call(Opcode::Unlink, ROOT, &[name.as_bytes()], 0);
        assert_eq!(removed.error, 0, "UNLINK");
        assert_eq!(session.release(Opcode::Release, file), 0);
    }
    (files, 0)
}

/// What a node costs at the most, in bytes: of the daemon's memory, and of that below `--state-dir`.
pub fn cost_of_a_node(test: &str, files: usize, options: &[&str]) -> (usize, u64) {
    let scratch = Scratch::in_memory(test).unwrap();
    let state = scratch.dir("state").unwrap();
    let shared = scratch.dir("shared").unwrap();
    let share = Share::start_on(test, &shared, |daemon| {
        daemon.args(options).arg("--state-dir").arg(&state)
    });
    let (_front_end, mut fs) = share.mounted();
    let daemon = Process::serving(&share.daemon);
    let occupied = || fs::metadata(state.join("virtiofsd.nodes")).unwrap().len();
    let before = (resident(&daemon), occupied());
    assert_eq!(make_and_remove(&mut fs, files), (files, 0));
    let bytes = (resident(&daemon) - before.0) / files;
    (bytes, (occupied() - before.1) / files as u64)
}

/// Nodes, and whether they are directories; and how many descriptors the daemon had at the most.
fn walk_all(fs: &mut Fs, daemon: &Process) -> (Vec<(u64, bool)>, usize) {
    let (mut nodes, mut directories, mut most_open) = (Vec::new(), vec![ROOT], 0);
    while let Some(directory) = directories.pop() {
        let found = list(fs, directory);
        directories.extend(found.iter().filter(|found| found.1).map(|found| found.0));
        nodes.extend(found);
        most_open = most_open.max(daemon.descriptors().len());
    }
    (nodes, most_open)
}

fn list(fs: &mut Fs, directory: u64) -> Vec<(u64, bool)> {
    let mut session = Session(fs);
    let opened = session.call(Opcode::Opendir, directory, &[&[0; 8]], 16);
    assert_eq!(opened.error, 0, "OPENDIR");
    let handle = number(&opened.body, 0);
    let (mut found, mut offset) = (Vec::new(), 0);
    loop {
        let body = transfer(handle, offset, LISTING);
        let listed = session.call(Opcode::Readdirplus, directory, &[&body], LISTING as usize);
        assert_eq!(listed.error, 0, "READDIRPLUS");
        let mut rest = &listed.body[..];
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            offset = number(rest, ENTRY + 8);
            let (name_len, kind) = (word(ENTRY + 16) as usize, word(ENTRY + 20));
            let name = &rest[ENTRY + 24..ENTRY + 24 + name_len];
            if !matches!(name, b"." | b"..") {
                // 0 is an entry whose lookup failed.
                assert_ne!(number(rest, 0), 0, "{}", String::from_utf8_lossy(name));
                found.push((number(rest, 0), kind == u32::from(libc::DT_DIR)));
            }
            rest = &rest[(ENTRY + 24 + name_len).next_multiple_of(8)..];
        }
    }
    let opcode = Opcode::Releasedir;
    assert_eq!(session.release(opcode, (directory, handle)), 0);
    found
}

fn use_again(fs: &mut Fs, node: u64, is_directory: bool) {
    let status = fs.request(Opcode::Getattr as u32, Caller::root(node), &[&[0; 16]], 104);
    assert_eq!(status.unwrap().error, 0, "GETATTR");
    if !is_directory {
        let mut session = Session(fs);
        let handle = session.open(node);
        assert_eq!(session.read((node, handle), 0, 10).error, 0);
        assert_eq!(session.release(Opcode::Release, (node, handle)), 0);
    }
}

/// Resident memory that belongs to nobody else, in bytes.
pub fn resident(daemon: &Process) -> usize {
    let line = daemon.status("RssAnon");
    let kib: usize = line.trim_end_matches(" kB").trim().parse().unwrap();
    kib << 10
}
