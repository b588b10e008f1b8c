//! A tree of any size is walked with few files open.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod share;
mod walking;

use lab::inside::Process;
use lab::need;
use share::session::Session;
use share::{SOON, Share};

const FILES: usize = 100_000;
const LIMITS: [&str; 4] = ["--rlimit-nofile", "1024", "--max-open", "256"];

/// What a daemon has open besides nodes, with room for what a request opens for a moment.
const BESIDES: usize = 60;

fn walk_with(handles: &str) -> walking::Walked {
    let options = [&LIMITS[..], &["--inode-file-handles", handles]].concat();
    let walked = walking::walk("fs-walk", FILES, &options);
    eprintln!("{walked:?}");
    assert_eq!(walked.nodes, FILES + 100 + 20);
    assert!(walked.most_open <= 256 + BESIDES, "{walked:?}");
    walked
}

#[test]
fn many_files_are_walked_by_handle() {
    need::root().unwrap();
    walk_with("as-needed");
}

#[test]
fn many_files_are_walked_by_name() {
    walk_with("never");
}

/// Makes and removes files, without ever forgetting one: the daemon remembers so many and no more.
fn nodes_end_with(handles: &str) {
    const NODES: usize = 3000;
    let limit = NODES.to_string();
    let options = ["--max-nodes", &limit, "--inode-file-handles", handles];
    let mut share = Share::start_in_memory("fs-nodes", |daemon| daemon.args(LIMITS).args(options));
    let (_front_end, mut fs) = share.mounted();
    std::fs::write(share.directory.join("kept"), "").unwrap();
    let kept = Session(&mut fs).lookup("kept").unwrap();
    let made = walking::make_and_remove(&mut fs, 2 * NODES);
    // All but the root and the file that is kept.
    assert_eq!(made, (NODES - 2, libc::ENFILE), "{handles}");
    let daemon = Process::serving(&share.daemon);
    let before = walking::resident(&daemon);
    for _ in 0..2 * NODES {
        assert_eq!(walking::make_and_remove(&mut fs, 1), (0, libc::ENFILE));
    }
    let grown = walking::resident(&daemon).saturating_sub(before);
    assert!(grown < 256 << 10, "{handles}: {grown} bytes");
    let left: Vec<_> = std::fs::read_dir(&share.directory).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(Session(&mut fs).lookup("kept"), Ok(kept));
    share.daemon.wait_stderr("--max-nodes", SOON).unwrap();
    // A guest that forgets goes on.
    Session(&mut fs).forget(kept, 2);
    assert_eq!(walking::make_and_remove(&mut fs, 2), (1, libc::ENFILE));
}

#[test]
fn a_guest_that_forgets_nothing_makes_the_daemon_grow_no_further_than_told() {
    for handles in ["as-needed", "never"] {
        nodes_end_with(handles);
    }
}
