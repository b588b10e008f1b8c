//! The commands of the control socket ([`vhost_daemon::control`]).

mod stats;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::device::ResizeError;
use crate::disks::AddError;
use crate::limits::Rates;
use crate::options::{DiskSpec, OptionsError};

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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use vhost_daemon::control::{Controlled, Done, answer};

    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Option<Command>>);

    impl Controlled for Recorder {
        type Command = Command;
        type Report = Vec<DiskStats>;
        type Refusal = Refusal;

        fn carry_out(self: &Arc<Self>, command: Command) -> Result<Done<Vec<DiskStats>>, Refusal> {
            *self.0.lock().unwrap() = Some(command);
            Err(Refusal::NoDisk)
        }
    }

    /// The command that a line is taken for.
    fn heard(line: &str) -> Option<Command> {
        let recorder = Arc::new(Recorder::default());
        answer(&recorder, line);
        recorder.0.lock().unwrap().take()
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
            let _ = answer(&Arc::new(Recorder::default()), &line);
        }
    }
}
