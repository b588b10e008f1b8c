//! What a write that was killed leaves, and what others leave that looks like it.

use std::ffi::CString;
use std::fs;

use fuse_backend_rs::api::filesystem::{Context, FileSystem};
use tempfile::TempDir;

use super::super::Server;
use crate::fuse::ROOT;
use crate::passthrough::{Config, Passthrough};

const BEFORE: usize = 1000;
/// To the end of the file's third page.
const FRAGMENT: usize = 3 * 4096 - BEFORE;

/// A file of [`BEFORE`] bytes and `behind`; its node.
fn file_with(behind: &[u8]) -> (TempDir, Server<Passthrough>, u64) {
    let dir = tempfile::tempdir().unwrap();
    let content = [&[b'-'; BEFORE], behind].concat();
    fs::write(dir.path().join("log"), content).unwrap();
    let file_system = Passthrough::open(Config::new(dir.path())).unwrap();
    let (context, name) = (Context::default(), CString::from(c"log"));
    let node = file_system.lookup(&context, ROOT, &name).unwrap().inode;
    (dir, Server::new(file_system), node)
}

fn data() -> Vec<u8> {
    (0..20_000_u32)
        .map(|n| (n * 7 + n / 251).to_le_bytes()[0])
        .collect()
}

#[test]
fn of_a_write_that_was_killed_between_two_pages_the_rest_is_left() {
    let data = data();
    let (_dir, server, node) = file_with(&data[..FRAGMENT]);
    let appended = |data| server.appended(node, BEFORE as u64, data).unwrap();
    assert_eq!(appended(&data), FRAGMENT);
    assert_eq!(appended(&data), 0, "it is one request's");
}

#[test]
fn what_others_may_have_appended_is_theirs() {
    let data = data();
    let part = &data[..FRAGMENT];
    for (behind, what) in [
        (&b""[..], "nothing"),
        (&[part, b"x"].concat(), "more behind it"),
        (&[b'x'; FRAGMENT], "something else"),
    ] {
        let (_dir, server, node) = file_with(behind);
        assert_eq!(
            server.appended(node, BEFORE as u64, &data).unwrap(),
            0,
            "{what}"
        );
    }
}

#[test]
fn all_of_it_is_found_wherever_it_is() {
    let data = data();
    let (_dir, server, node) = file_with(&[b"others'", &data[..], b"others'"].concat());
    let appended = |data| server.appended(node, BEFORE as u64, data).unwrap();
    assert_eq!(appended(&data), data.len());
    assert_eq!(appended(&data), 0, "it is one request's");
    assert_eq!(appended(&[]), 0);
}
