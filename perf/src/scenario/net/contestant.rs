//! Who takes turns.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::Role;
use super::results::ContestantFacts;
use super::workload::{Direction, Target, Workload};
use crate::peer::RunningDaemon;

/// Somebody who takes turns, or would.
#[derive(Debug)]
pub(super) struct Contestant {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) version: Option<String>,
    /// Or why it takes no part.
    pub(super) entry: Result<Entry, String>,
}

/// How a turn of it is run.
#[derive(Debug)]
pub(super) enum Entry {
    /// Through its rings.
    Daemon(RunningDaemon, Place),
    /// System calls on a tap.
    Bare(OwnedFd, TapPlace),
}

/// Where frames go.
#[derive(Debug)]
pub(super) enum Place {
    /// Through a tap.
    Tap(TapPlace),
    /// To the other port, at this socket.
    Switch(PathBuf),
}

/// A tap.
#[derive(Clone, Debug)]
pub(super) struct TapPlace {
    /// Its number on the ground; the first is for daemons that run already.
    pub(super) number: u8,
    /// Its name.
    pub(super) name: String,
    /// The process whose network namespace it is in, where that is not the ground's.
    pub(super) of: Option<u32>,
}

impl Contestant {
    /// Whether the load means anything to it.
    pub(super) fn takes_part(&self, workload: Workload) -> bool {
        self.role != Role::Limit || workload.direction != Direction::Echo
    }

    pub(super) fn facts(&self, target: Target) -> ContestantFacts {
        let command = match &self.entry {
            Ok(Entry::Daemon(daemon, _)) => daemon.command().to_owned(),
            Ok(Entry::Bare(..)) => "write(2) and read(2) on the tap".to_owned(),
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
