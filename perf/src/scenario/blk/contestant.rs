//! Who takes turns.

use std::path::PathBuf;

use super::Role;
use super::results::ContestantFacts;
use super::workload::{Mode, Target};
use crate::peer::RunningDaemon;
use crate::peer::fio::Engine;

/// Somebody who takes turns, or would.
#[derive(Debug)]
pub(super) struct Contestant {
    pub name: String,
    pub role: Role,
    pub version: Option<String>,
    /// Or why it takes no part.
    pub entry: Result<Entry, String>,
}

/// How a turn of it is run.
#[derive(Debug)]
pub(super) enum Entry {
    /// Through its rings.
    Daemon(RunningDaemon),
    /// fio on the file.
    Fio { program: PathBuf, engine: Engine },
}

impl Contestant {
    /// The modes in which it runs, of those asked for.
    pub(super) fn modes<'a>(&self, asked: &'a [Mode]) -> &'a [Mode] {
        match self.role {
            Role::Limit => &[Mode::Host],
            _ => asked,
        }
    }

    /// Its daemon, if it is one.
    pub(super) fn daemon(&self) -> Option<&RunningDaemon> {
        match &self.entry {
            Ok(Entry::Daemon(daemon)) => Some(daemon),
            _ => None,
        }
    }

    pub(super) fn facts(&self, target: Target) -> ContestantFacts {
        let command = match &self.entry {
            Ok(Entry::Daemon(daemon)) => daemon.command().to_owned(),
            Ok(Entry::Fio { program, .. }) => program.display().to_string(),
            Err(_) => String::new(),
        };
        ContestantFacts {
            target,
            name: self.name.clone(),
            role: self.role,
            command,
            version: self.version.clone(),
            skipped: self.entry.as_ref().err().cloned(),
        }
    }
}
