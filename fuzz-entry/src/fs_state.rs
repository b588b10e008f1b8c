//! What a file system daemon left in its state directory, and what another one sent, both changed at will: the next
//! one goes on with it or does not, and reaches nothing outside the share.
//!
//! Byte 0 chooses: a state directory or a stream, how files are kept. For a directory, changes of eleven bytes
//! follow: which file, which word (2), the word (8). For a stream the rest is the stream; if it begins with a zero
//! byte, changes of three bytes follow: place in what was saved of a guest (2), byte.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use virtiofsd::fuse::abi::InHeader;
use virtiofsd::fuse::{Opcode, ROOT};
use virtiofsd::passthrough::{Config, FileHandles, MigrationConfig, MigrationMode, Passthrough};
use virtiofsd::server::Server;
use virtiofsd::state::{Journal, State};

use crate::fs_request::{init, serve};
use crate::playground::{Playground, SECRET, outside};

const QUEUES: usize = 2;
const QUEUE_SIZE: u16 = 16;
const FILES: [&str; 3] = [
    "virtiofsd.nodes",
    "virtiofsd.journal",
    "virtiofsd.in-flight",
];

fn config(choice: u8, at: &Path) -> Config {
    let file_handles = match choice >> 1 & 3 {
        0 => FileHandles::AsNeeded,
        1 => FileHandles::Never,
        _ => FileHandles::Prefer,
    };
    let mode = if choice & 8 == 0 {
        MigrationMode::FindPaths
    } else {
        MigrationMode::FileHandles
    };
    Config {
        file_handles,
        migration: MigrationConfig {
            mode,
            ..MigrationConfig::default()
        },
        ..Config::new(at.join("shared"))
    }
}

fn ask(server: &Server<Passthrough>, opcode: Opcode, node: u64, body: &[u8]) -> Vec<u8> {
    let header = InHeader {
        len: (40 + body.len()) as u32,
        opcode: opcode as u32,
        unique: 1,
        nodeid: node,
        ..Default::default()
    };
    serve(server, &header, body, 4096)
}

/// A guest that knows some files and has one open.
fn begin(server: &Server<Passthrough>) {
    init(server);
    ask(server, Opcode::Lookup, ROOT, b"a\0");
    ask(server, Opcode::Lookup, ROOT, b"d\0");
    ask(server, Opcode::Lookup, ROOT + 2, b"f\0");
    ask(server, Opcode::Lookup, ROOT, b"l\0");
    ask(server, Opcode::Open, ROOT + 1, &[2, 0, 0, 0, 0, 0, 0, 0]);
}

/// A guest goes on: nothing that it can name is outside.
fn go_on(server: &Server<Passthrough>) {
    for node in (1..8).chain([u64::MAX]) {
        for (opcode, body) in [
            (Opcode::Getattr, &[0; 16][..]),
            (Opcode::Open, &[0; 8]),
            (Opcode::Readlink, &[]),
            (Opcode::Lookup, b"new\0"),
        ] {
            ask(server, opcode, node, body);
        }
    }
    for handle in (0_u64..16).chain([u64::MAX]) {
        let words = [handle, 0, 4096, 0, 0];
        let body: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let answer = ask(server, Opcode::Read, ROOT + 1, &body);
        let secret = answer.windows(SECRET.len()).any(|bytes| bytes == SECRET);
        assert!(!secret, "a secret was read");
    }
}

fn recall(journal: &Journal) {
    for unique in [0, 1, 7, 8, u64::MAX] {
        if let Some(entry) = journal.enter(unique, Opcode::Mkdir) {
            let _ = entry.recalled();
            entry.begin(&[unique; 8]);
            entry.done(0, &[1; 200]);
        }
    }
}

fn surviving(choice: u8, at: &Path) -> Option<Server<Passthrough>> {
    let state = State::open(&at.join("state"), QUEUES, QUEUE_SIZE).unwrap();
    let mut shared = Passthrough::open(config(choice, at)).unwrap();
    shared.remember_in(&state, None).unwrap();
    recall(&state.journal(1));
    Server::new(shared).surviving(Arc::new(state)).ok()
}

/// The share as every input finds it, and what a daemon that was killed left.
struct Left {
    files: [Vec<u8>; 3],
    stream: Vec<u8>,
}

fn prepare(at: &Path) -> Left {
    let shared = at.join("shared");
    fs::write(shared.join("a"), "some content").unwrap();
    fs::create_dir(shared.join("d")).unwrap();
    fs::write(shared.join("d/f"), "more").unwrap();
    symlink("../secret", shared.join("l")).unwrap();
    let server = surviving(0, at).unwrap();
    begin(&server);
    let files = FILES.map(|name| fs::read(at.join("state").join(name)).unwrap());
    let stream = server.save().unwrap();
    Left { files, stream }
}

fn from_directory(choice: u8, at: &Path, left: &Left, changes: &[u8]) {
    let state = at.join("state");
    for (name, content) in FILES.iter().zip(&left.files) {
        fs::write(state.join(name), content).unwrap();
    }
    for change in changes.chunks_exact(11) {
        let file = usize::from(change[0]) % FILES.len();
        let word = u64::from(u16::from_le_bytes([change[1], change[2]]));
        let path = state.join(FILES[file]);
        let content = OpenOptions::new().write(true).open(path).unwrap();
        let inside = word * 8 + 8 <= left.files[file].len() as u64;
        if inside {
            content.write_all_at(&change[3..], word * 8).unwrap();
        }
    }
    if let Some(server) = surviving(choice, at) {
        go_on(&server);
    }
}

fn from_stream(choice: u8, at: &Path, left: &Left, rest: &[u8]) {
    let server = Server::new(Passthrough::open(config(choice, at)).unwrap());
    let loaded = match rest.split_first() {
        Some((0, changes)) => {
            let mut stream = left.stream.clone();
            for change in changes.chunks_exact(3) {
                let place = usize::from(u16::from_le_bytes([change[0], change[1]]));
                let len = stream.len();
                stream[place % len] = change[2];
            }
            server.load(&stream)
        }
        _ => server.load(rest),
    };
    if loaded.is_ok() {
        go_on(&server);
    }
}

thread_local! {
    /// Of the playground's thread.
    static LEFT: Left = prepare(Path::new("/dev/shm"));
}

fn play(at: &Path, input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else {
        return;
    };
    LEFT.with(|left| {
        let before = outside(at);
        match choice & 1 {
            0 => from_directory(*choice, at, left, rest),
            _ => from_stream(*choice, at, left, rest),
        }
        assert_eq!(outside(at), before, "something outside has changed");
    });
}

static PLAYGROUND: LazyLock<Playground> = LazyLock::new(|| Playground::new(play));

/// What one input does.
pub fn run(input: &[u8]) {
    PLAYGROUND.play(input);
}
