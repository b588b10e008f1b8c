//! A hostile guest's requests to the file system daemon's server, on a directory in memory: nothing
//! outside it is read or changed, and what the guest had open goes with it.
//!
//! Byte 0 chooses how files are kept and what is agreed on. Then come requests: opcode, node, user, units of
//! extensions, room for the answer (two bytes), length (two bytes), and so many bytes behind the
//! header.
#![no_main]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use rustix::fs::FallocateFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use virtiofsd::fuse::abi::InHeader;
use virtiofsd::fuse::{Features, Opcode, ROOT};
use virtiofsd::passthrough::{CachePolicy, Config, FileHandles, Passthrough};
use virtiofsd::server::{Reply, Request, Server, Work, body_len};

const SECRET: &[u8] = b"what no guest may read: 7f3a91";
const HEADER: usize = 40;

/// A small file system of its own, so that no request fills the host's.
fn scratch() -> PathBuf {
    // SAFETY: the mounts are this thread's own from now on; nobody holds a descriptor of one that
    // would have to be the same for all threads.
    let alone = unsafe { unshare_unsafe(UnshareFlags::NEWNS) };
    alone.expect("fuzzing mounts a tmpfs: run it as root");
    let kept_here = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    mount_change("/", kept_here).unwrap();
    let at = PathBuf::from("/dev/shm");
    let options = c"size=16m,nr_inodes=4000";
    rustix::mount::mount("fuzz", &at, "tmpfs", MountFlags::NODEV, options).unwrap();
    fs::create_dir(at.join("outside")).unwrap();
    fs::write(at.join("secret"), SECRET).unwrap();
    fs::write(at.join("outside/file"), SECRET).unwrap();
    fs::create_dir(at.join("shared")).unwrap();
    at
}

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

/// What must not change outside: also its times.
fn outside(at: &Path) -> Vec<(u64, u64, u32, u64, i64, i64)> {
    let paths = [
        at.to_owned(),
        at.join("secret"),
        at.join("outside"),
        at.join("outside/file"),
    ];
    let status = paths.iter().map(|path| fs::symlink_metadata(path).unwrap());
    status
        .map(|s| {
            (
                s.ino(),
                s.nlink(),
                s.mode(),
                s.size(),
                s.ctime(),
                s.ctime_nsec(),
            )
        })
        .collect()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
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
fn serve(server: &Server<Passthrough>, header: &InHeader, rest: &[u8], room: usize) -> Vec<u8> {
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

fn init(server: &Server<Passthrough>) {
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

/// What one input does.
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

/// A thread as a queue has it: with a mount namespace and a current directory of its own.
static QUEUE: LazyLock<(Sender<Vec<u8>>, Mutex<Receiver<()>>)> = LazyLock::new(|| {
    let (input, inputs) = mpsc::channel::<Vec<u8>>();
    let (done, all_done) = mpsc::channel();
    std::thread::spawn(move || {
        let at = scratch();
        for input in inputs {
            attack(&at, &input);
            done.send(()).unwrap();
        }
    });
    (input, Mutex::new(all_done))
});

fuzz_target!(|input: &[u8]| {
    QUEUE.0.send(input.to_vec()).unwrap();
    QUEUE.1.lock().unwrap().recv().unwrap();
});
