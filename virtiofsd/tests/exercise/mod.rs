//! A file worked on at random, beside a model of its content: whatever is read is what the model says.
//! (The idea is that of Apple's fsx.)
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

mod aligned;
mod copies;
mod model;
mod operation;
mod perform;
mod random;
mod stripes;

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use model::Model;
use operation::Operation;
use random::Random;

pub use stripes::{LEN, Stripes};

/// A file, and the way that it is worked on.
pub struct Exercise {
    /// In which the file is worked on.
    directory: PathBuf,
    /// The same directory on the host, if this runs there.
    host: Option<PathBuf>,
    /// With `O_DIRECT`.
    direct: bool,
    name: String,
    renamed: u64,
    random: Random,
    model: Model,
    file: File,
    /// To copy to and from.
    other: File,
    done: VecDeque<(u64, Operation)>,
    refused: Vec<Operation>,
}

/// How many of the last operations a failure tells.
const TOLD: usize = 15;

impl Exercise {
    pub fn new(directory: PathBuf, host: Option<PathBuf>, seed: u64, direct: bool) -> Self {
        let name = format!("file-{seed:x}");
        let (file, other) = (
            open(&directory.join(&name), direct),
            open(&directory.join(format!("other-{seed:x}")), false),
        );
        Self {
            directory,
            host,
            direct,
            name,
            renamed: 0,
            random: Random::new(seed),
            model: Model::default(),
            file,
            other,
            done: VecDeque::new(),
            refused: Vec::new(),
        }
    }

    /// Does `operations` things.
    ///
    /// # Errors
    /// What was wrong, and what led there.
    pub fn run(&mut self, operations: u64) -> Result<(), String> {
        for number in 1..=operations {
            let size = self.model.size();
            let operation = operation::draw(&mut self.random, size, self.direct);
            self.done.push_back((number, operation));
            if self.done.len() > TOLD {
                self.done.pop_front();
            }
            self.perform(operation)
                .map_err(|what| format!("{what}\n{}", self.story()))?;
        }
        let end = self
            .perform(Operation::Reopen)
            .and_then(|()| self.perform(Operation::Sync))
            .and_then(|()| self.perform(Operation::Verify));
        end.map_err(|what| format!("at the end: {what}\n{}", self.story()))
    }

    fn story(&self) -> String {
        let lines = self.done.iter();
        let lines = lines.map(|(number, operation)| format!("  {number}: {operation:?}\n"));
        lines.collect()
    }

    fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

fn open(path: &std::path::Path, direct: bool) -> File {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    if direct {
        options.custom_flags(libc::O_DIRECT);
    }
    options
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
