//! The commands of the control socket ([`vhost_daemon::control`]).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vhost_daemon::rate;

use crate::metrics::Direction;

/// What a daemon can be asked. Where a port's name is left out, the only port is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Subcommand)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Command {
    /// Tell how a port is doing, or without a name all of them
    Stats {
        /// The port's name
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
    },
    /// Set rate limits; what is not named has no limit
    Limit(Limit),
    /// Take the guest's link up or down
    Link {
        /// up or down
        state: LinkState,
        /// The port's name
        #[arg(long)]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
    },
    /// Send copies of passing frames behind the answer
    #[command(skip)]
    Capture(Capture),
}

/// A link's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Frames pass.
    Up,
    /// They do not.
    Down,
}

/// New rate limits of a port.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Limit {
    /// The port's name
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// To the guest or from it; both if left out
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Frames a second (0: no limit)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub packets: u64,
    /// Frames that may come at once after a rest; a tenth of a second's worth if 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub packets_burst: u64,
    /// Bytes a second (0: no limit)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub bytes: u64,
    /// Bytes that may come at once after a rest; a tenth of a second's worth if 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub bytes_burst: u64,
}

/// What to copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// The port's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Bytes of each frame.
    #[serde(default = "all")]
    pub snap: usize,
    /// Frames after which to end; 0: no end.
    #[serde(default)]
    pub frames: u64,
}

fn all() -> usize {
    crate::capture::MAX_SNAP
}

/// How much may pass in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Frames a second.
    pub packets: u64,
    /// Frames at once after a rest.
    pub packets_burst: u64,
    /// Bytes a second.
    pub bytes: u64,
    /// Bytes at once after a rest.
    pub bytes_burst: u64,
}

impl Limit {
    /// The rates alone.
    pub fn rates(&self) -> rate::Rates {
        rate::Rates {
            units: self.packets,
            units_burst: self.packets_burst,
            bytes: self.bytes,
            bytes_burst: self.bytes_burst,
        }
    }
}

impl From<rate::Rates> for Rates {
    fn from(rates: rate::Rates) -> Self {
        Self {
            packets: rates.units,
            packets_burst: rates.units_burst,
            bytes: rates.bytes,
            bytes_burst: rates.bytes_burst,
        }
    }
}

/// A port as it is served now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    /// Its name.
    pub port: String,
    /// Its network: `tap NAME`, `passt PATH` or `switch`.
    pub network: String,
    /// Its socket, if it is not inherited.
    pub socket: Option<PathBuf>,
    /// What the device itself knows.
    #[serde(flatten)]
    pub state: PortState,
    /// Frames to the guest.
    pub received: Passed,
    /// Frames from the guest.
    pub transmitted: Passed,
}

/// The device's own part of [`PortStats`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// Whether a front end is connected.
    pub connected: bool,
    /// Whether the guest is told that its link is up.
    pub link: LinkState,
    /// The guest's address, where it is known.
    pub mac: Option<String>,
    /// The largest packet, where it is known.
    pub mtu: Option<u16>,
    /// Queue pairs offered, and in use.
    pub queue_pairs: [usize; 2],
    /// Limits of frames to the guest.
    pub receive_limit: Rates,
    /// Limits of frames from the guest.
    pub transmit_limit: Rates,
}

/// Frames of one direction since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Passed on.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lost.
    pub dropped: u64,
}

/// Why a command was not carried out.
#[derive(Debug, Error)]
pub enum Refusal {
    /// A name that no port has.
    #[error("there is no port '{0}'")]
    UnknownPort(String),
    /// No name, and several ports.
    #[error("which port? There are {0}")]
    WhichPort(String),
    /// As many captures as there may be.
    #[error("the port has four captures already")]
    TooManyCaptures,
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
        type Report = Vec<PortStats>;
        type Refusal = Refusal;

        fn carry_out(self: &Arc<Self>, command: Command) -> Result<Done<Vec<PortStats>>, Refusal> {
            *self.0.lock().unwrap() = Some(command);
            Err(Refusal::TooManyCaptures)
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
        let port = Some("a".to_owned());
        let limit = Limit {
            direction: Some(Direction::Transmit),
            packets_burst: 7,
            ..Limit::default()
        };
        let capture = Capture {
            port: port.clone(),
            snap: 65_535,
            frames: 0,
        };
        let state = LinkState::Down;
        for (line, command) in [
            (r#"{"command":"stats"}"#, Command::Stats { port: None }),
            (
                r#"{"command":"link","state":"down","port":"a"}"#,
                Command::Link { state, port },
            ),
            (
                r#"{"command":"limit","direction":"transmit","packets-burst":7}"#,
                Command::Limit(limit),
            ),
            (
                r#"{"command":"capture","port":"a"}"#,
                Command::Capture(capture),
            ),
        ] {
            assert_eq!(heard(line).as_ref(), Some(&command), "{line}");
            let written = serde_json::to_string(&command).unwrap();
            assert_eq!(heard(&written), Some(command), "{written}");
        }
        assert_eq!(heard(r#"{"command":"stats","prot":"a"}"#), None);
        assert_eq!(heard(r#"{"command":"limit","packets":-1}"#), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered(line in ".{0,200}") {
            let _ = answer(&Arc::new(Recorder::default()), &line);
        }
    }
}
