//! What ordinary programs do with files, as a transcript: the same on the host's own file system
//! and in a guest.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

mod attributes;
pub mod compare;
mod data;
pub mod differences;
mod listing;
mod locks;
mod mapped;
mod moves;
mod names;
mod opening;
mod owners;
mod permissions;
mod ranges;
mod special;
mod times;

use std::fmt::{Debug, Write};
use std::path::{Path, PathBuf};

/// What was done, and what came of it.
pub struct Transcript {
    lines: String,
    directory: PathBuf,
}

impl Transcript {
    /// A path in the directory worked in.
    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Notes what came of `what`.
    pub fn note(&mut self, what: &str, outcome: impl Debug) {
        let _ = writeln!(self.lines, "{what}: {outcome:?}");
    }

    /// Notes whether `what` worked, with the errno if not.
    pub fn tried<T>(&mut self, what: &str, result: Result<T, impl Into<std::io::Error>>) {
        let outcome = result
            .map(drop)
            .map_err(|error| error.into().raw_os_error());
        self.note(what, outcome);
    }
}

/// Works in a new directory `directory`; returns the transcript.
pub fn run(directory: &Path) -> String {
    std::fs::create_dir(directory).unwrap();
    let mut transcript = Transcript {
        lines: String::new(),
        directory: directory.to_owned(),
    };
    type Part = (&'static str, fn(&mut Transcript));
    const PARTS: [Part; 13] = [
        ("names", names::run),
        ("data", data::run),
        ("special", special::run),
        ("owners", owners::run),
        ("moves", moves::run),
        ("times", times::run),
        ("ranges", ranges::run),
        ("opening", opening::run),
        ("attributes", attributes::run),
        ("listing", listing::run),
        ("mapped", mapped::run),
        ("locks", locks::run),
        ("permissions", permissions::run),
    ];
    for (name, part) in PARTS {
        transcript.note("==", name);
        part(&mut transcript);
    }
    transcript.lines
}
