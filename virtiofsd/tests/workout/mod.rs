//! What ordinary programs do with files, as a transcript: the same on the host's own file system
//! and in a guest.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

pub mod compare;
mod data;
mod names;
mod owners;
mod special;

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
    for part in [names::run, data::run, special::run, owners::run] {
        part(&mut transcript);
    }
    transcript.lines
}
