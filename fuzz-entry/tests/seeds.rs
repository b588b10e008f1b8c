//! Every kept input, played through the code that the fuzzer runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fuzz_entry::TARGETS;

/// All seeds together stay below this: they are in the repository.
const MOST_BYTES: u64 = 1 << 20;

fn fuzz(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz")
        .join(folder)
}

fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz(folder)).unwrap();
    let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    entries.map(|entry| name(entry.unwrap().path())).collect()
}

#[test]
fn every_target_is_fuzzed_and_has_inputs() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), known);
    assert_eq!(names("seeds"), known);
    let manifest = fs::read_to_string(fuzz("Cargo.toml")).unwrap();
    for name in &known {
        let bin = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(manifest.contains(&bin), "fuzz/Cargo.toml has no {bin}");
    }
}

/// Plays the inputs of the targets whose names `chosen` takes.
fn play(chosen: impl Fn(&str) -> bool) {
    let mut bytes = 0;
    for (name, target) in TARGETS.iter().filter(|(name, _)| chosen(name)) {
        let folder = fuzz("seeds").join(name);
        let mut paths: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(!paths.is_empty(), "{} has no input", folder.display());
        paths.sort();
        for path in paths {
            // Shown where the test fails.
            println!("{}", path.display());
            let input = fs::read(&path).unwrap();
            bytes += input.len() as u64;
            target(&input);
        }
    }
    assert!(bytes < MOST_BYTES, "the seeds have {bytes} bytes");
}

#[test]
fn kept_inputs_break_no_promise() {
    play(|name| !matches!(name, "fs_request" | "fs_state" | "session"));
}

#[test]
fn kept_requests_to_the_file_system_break_no_promise() {
    play(|name| name == "fs_request");
}

#[test]
fn kept_states_of_the_file_system_break_no_promise() {
    play(|name| name == "fs_state");
}

#[test]
fn kept_sessions_break_no_promise() {
    play(|name| name == "session");
}
