//! A hostile guest's requests to the file system daemon's server, on a directory in memory: nothing
//! outside it is read or changed, and what the guest had open goes with it.
//!
//! Byte 0 chooses how files are kept and what is agreed on. Then come requests: opcode, node, user, units of
//! extensions, room for the answer (two bytes), length (two bytes), and so many bytes behind the
//! header.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rustix::fs::FallocateFlags;
use virtiofsd::fuse::abi::InHeader;
use virtiofsd::fuse::{Features, Opcode, ROOT};
use virtiofsd::passthrough::{CachePolicy, Config, FileHandles, Passthrough};
use virtiofsd::server::{Reply, Request, Server, Work, body_len};

use crate::playground::{Playground, SECRET, descriptors, outside};

const HEADER: usize = 40;

/// A directory as each input finds it.
fn fill(shared: &Path) {
    for entry in fs::read_dir(shared).unwrap() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    fs::write(shared.join("a"), "some content").unwrap();
    fs::create_dir(shared.join("d")).unwrap();
    fs::write(shared.join("d/f"), "more").unwrap();
    symlink("../secret", shared.join("l")).unwrap();
    symlink("/", shared.join("m")).unwrap();
    symlink("../outside", shared.join("o")).unwrap();
}

fn config(choice: u8, shared: PathBuf) -> Config {
    let file_handles = match choice & 3 {
        0 => FileHandles::AsNeeded,
        1 => FileHandles::Never,
        2 => FileHandles::Prefer,
        _ => FileHandles::Mandatory,
    };
    Config {
        file_handles,
        max_open: Some(if choice & 4 == 0 { 100 } else { 3 }),
        cache: if choice & 8 == 0 {
            CachePolicy::Auto
        } else {
            CachePolicy::Never
        },
        writeback: choice & 16 != 0,
        posix_acl: choice & 32 != 0,
        security_label: choice & 32 != 0,
        announce_submounts: choice & 32 != 0,
        posix_lock: choice & 64 != 0,
        flock: choice & 64 != 0,
        direct_io: choice & 8 != 0,
        ..Config::new(shared)
    }
}

/// Carries a request out as a queue's thread does; what the guest hears.
pub(crate) fn serve(
    server: &Server<Passthrough>,
    header: &InHeader,
    rest: &[u8],
    room: usize,
) -> Vec<u8> {
    let Ok(len) = body_len(header) else {
        return Vec::new();
    };
    let (body, data) = rest.split_at(len);
    let mut bytes = Vec::new();
    let mut again = false;
    loop {
        let Ok(Some(mut request)) = Request::decode(header, body) else {
            return Vec::new();
        };
        request.creator.may_wait = again;
        let mut reply = Reply::new(&mut bytes, room);
        let served = server.serve(&mut request, &mut reply);
        if matches!(served, Ok(Work::Elsewhere)) && !again {
            again = true;
            continue;
        }
        if let Ok(work) = served {
            carry_out(work, data, room, &mut bytes);
        }
        assert!(bytes.len() <= room.max(16));
        return bytes;
    }
}

fn carry_out(work: Work, data: &[u8], room: usize, answer: &mut Vec<u8>) {
    match work {
        Work::Read { file, offset, size } => {
            let mut content = vec![0; (size as usize).min(room)];
            let read = file.file.read_at(&mut content, offset).unwrap_or(0);
            answer.extend_from_slice(&content[..read.min(room.saturating_sub(answer.len()))]);
        }
        Work::Write {
            file, offset, size, ..
        } => {
            if let Some(data) = data.get(..size as usize) {
                let _ = file.file.write_at(data, offset);
            }
        }
        Work::Allocate {
            file,
            mode,
            offset,
            len,
        } => {
            let mode = FallocateFlags::from_bits_retain(mode);
            let _ = rustix::fs::fallocate(&*file, mode, offset, len);
        }
        _ => {}
    }
}

pub(crate) fn init(server: &Server<Passthrough>) {
    let (flags, flags2) = Features::from_bits(u64::MAX).words();
    let words = [7, 40, 4096, flags, flags2];
    let mut body: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    body.resize(64, 0);
    let header = InHeader {
        len: (HEADER + body.len()) as u32,
        opcode: Opcode::Init as u32,
        ..Default::default()
    };
    let answer = serve(server, &header, &body, 1000);
    assert!(answer.len() > 16);
}

fn play(server: &Server<Passthrough>, mut input: &[u8]) {
    for _ in 0..64 {
        let Some((said, rest)) = input.split_first_chunk::<8>() else {
            return;
        };
        let &[opcode, node, user, extensions, room @ .., low, high] = said;
        let len = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let room = usize::from(u16::from_le_bytes(room));
        let (body, rest) = rest.split_at(len);
        input = rest;
        // Nodes are numbered one after another.
        let nodeid = match node {
            0..200 => ROOT + u64::from(node % 24),
            _ => u64::from_le_bytes([node; 8]),
        };
        let header = InHeader {
            len: (HEADER + len) as u32,
            opcode: u32::from(opcode),
            unique: 1,
            nodeid,
            uid: u32::from(user & 15) * 1000,
            gid: u32::from(user >> 4) * 1000,
            pid: 1,
            padding: u32::from(extensions),
        };
        let answer = serve(server, &header, body, room);
        let secret = answer.windows(SECRET.len()).any(|bytes| bytes == SECRET);
        assert!(!secret, "a secret was read");
    }
}

/// Plays one input.
fn attack(at: &Path, input: &[u8]) {
    let Some((choice, requests)) = input.split_first() else {
        return;
    };
    let shared = at.join("shared");
    fill(&shared);
    let (before, open) = (outside(at), descriptors());
    let server = Server::new(Passthrough::open(config(*choice, shared)).unwrap());
    if choice & 128 == 0 {
        init(&server);
    }
    play(&server, requests);
    server.reset();
    assert_eq!(server.file_system().inode_count(), 1);
    assert_eq!(server.file_system().handle_count(), 0);
    drop(server);
    // The thread's own descriptor of /proc comes with the first attribute.
    assert!(descriptors() <= open + 1, "descriptors leak");
    assert_eq!(outside(at), before, "something outside has changed");
    assert_eq!(fs::read(at.join("secret")).unwrap(), SECRET);
}

static QUEUE: LazyLock<Playground> = LazyLock::new(|| Playground::new(attack));

/// What one input does.
pub fn run(input: &[u8]) {
    QUEUE.play(input);
}
