//! A tree of any size is walked with few files open.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod share;
mod walking;

use lab::need;

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
