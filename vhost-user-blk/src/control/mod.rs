//! Commands to a running daemon: one JSON object a line, answered by one.
//!
//! ```text
//! → {"command":"stats"}
//! ← {"ok":[{"disk":"root","source":"/images/root.img","capacity":1073741824, ...}]}
//! → {"command":"resize","disk":"root"}
//! ← {"error":"the image has shrunk to 512 bytes; a disk can only grow"}
//! ```

mod client;
mod server;
mod stats;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::device::ResizeError;
use crate::disks::AddError;
use crate::limits::Rates;
use crate::options::{DiskSpec, OptionsError};

pub use client::{ControlError, send};
pub use server::ControlServer;
pub use stats::{DiskState, DiskStats, Operations};

/// What a daemon can be asked. Where a disk's name is left out, the only disk is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Subcommand)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Command {
    /// Tell what is served: of one disk or, without a name, of all
    Stats {
        /// The disk's name
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disk: Option<String>,
    },
    /// Serve one more disk
    Add {
        /// The disk, as for --disk: path=FILE,socket=PATH,...
        disk: DiskSpec,
    },
    /// Serve a disk no more: its front end is disconnected, its queues are drained first
    Remove {
        /// The disk's name
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disk: Option<String>,
    },
    /// Take up the image's new size and tell the guest; a disk can only grow
    Resize {
        /// The disk's name
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disk: Option<String>,
    },
    /// Set a disk's rate limits; what is not named has no limit
    Limit(Limit),
}

/// New rate limits of a disk.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limit {
    /// The disk's name
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// Requests a second (0: no limit)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub iops: u64,
    /// Requests that may come at once after a rest; a tenth of a second's worth if 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub iops_burst: u64,
    /// Bytes a second (0: no limit)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub bytes: u64,
    /// Bytes that may come at once after a rest; a tenth of a second's worth if 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub bytes_burst: u64,
}

impl Limit {
    /// The rates alone.
    pub fn rates(&self) -> Rates {
        Rates {
            iops: self.iops,
            iops_burst: self.iops_burst,
            bytes: self.bytes,
            bytes_burst: self.bytes_burst,
        }
    }
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It was done; these are the disks it was about.
    Ok(Vec<DiskStats>),
    /// It was not done, and why.
    Error(String),
}

/// Why a command was not carried out.
#[derive(Debug, Error)]
pub enum Refusal {
    /// A name that no disk has.
    #[error("there is no disk '{0}'")]
    UnknownDisk(String),
    /// No name, and several disks.
    #[error("which disk? There are {0}")]
    WhichDisk(String),
    /// No name, and no disk.
    #[error("no disk is served")]
    NoDisk,
    /// A disk to add that is none.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A disk that cannot be added.
    #[error(transparent)]
    Add(#[from] AddError),
    /// A disk that cannot take its new size.
    #[error(transparent)]
    Resize(#[from] ResizeError),
}

/// What carries commands out.
pub trait Controlled: Send + Sync + 'static {
    /// Does what is asked and tells how the disks concerned are then.
    ///
    /// # Errors
    /// One sentence for whoever asked.
    fn carry_out(&self, command: Command) -> Result<Vec<DiskStats>, Refusal>;
}

/// Carries out one line.
pub fn answer(controlled: &dyn Controlled, line: &str) -> Answer {
    let command = match serde_json::from_str::<Command>(line) {
        Ok(command) => command,
        Err(error) => return Answer::Error(format!("not a command: {error}")),
    };
    match controlled.carry_out(command) {
        Ok(disks) => Answer::Ok(disks),
        Err(refusal) => Answer::Error(vhost_daemon::daemon::sentence(&refusal)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Option<Command>>);

    impl Controlled for Recorder {
        fn carry_out(&self, command: Command) -> Result<Vec<DiskStats>, Refusal> {
            *self.0.lock().unwrap() = Some(command);
            Err(Refusal::NoDisk)
        }
    }

    /// The command that a line is taken for.
    fn heard(line: &str) -> Option<Command> {
        let recorder = Recorder::default();
        answer(&recorder, line);
        recorder.0.into_inner().unwrap()
    }

    #[test]
    fn commands_read_as_documented() {
        let (disk, none) = (Some("a".to_owned()), None);
        let limit = Limit {
            iops: 1000,
            ..Limit::default()
        };
        let added = DiskSpec {
            path: Some("/a".into()),
            socket: Some("/s".into()),
            read_only: true,
            ..DiskSpec::default()
        };
        for (line, command) in [
            (
                r#"{"command":"stats"}"#,
                Command::Stats { disk: none.clone() },
            ),
            (
                r#" {"command": "resize", "disk": "a"} "#,
                Command::Resize { disk: disk.clone() },
            ),
            (
                r#"{"command":"remove","disk":"a"}"#,
                Command::Remove { disk },
            ),
            (r#"{"command":"limit","iops":1000}"#, Command::Limit(limit)),
            (r#"{"command":"limit"}"#, Command::Limit(Limit::default())),
            (
                r#"{"command":"add","disk":{"path":"/a","socket":"/s","read-only":true}}"#,
                Command::Add { disk: added },
            ),
        ] {
            assert_eq!(heard(line).as_ref(), Some(&command), "{line}");
            let written = serde_json::to_string(&command).unwrap();
            assert_eq!(heard(&written), Some(command), "{written}");
        }
        assert_eq!(heard(r#"{"command":"stats","disc":"a"}"#), None);
        assert_eq!(heard(r#"{"command":"limit","iops":-1}"#), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered(line in ".{0,200}") {
            let _ = answer(&Recorder::default(), &line);
        }
    }
}
