//! Commands to a running daemon: one JSON object a line, answered by one.
//!
//! ```text
//! → {"command":"stats"}
//! ← {"ok":{"capacity":1073741824,"read_only":false,"queues":2,"write_cache":true}}
//! → {"command":"resize"}
//! ← {"error":"the image has shrunk to 512 bytes; a disk can only grow"}
//! ```

mod client;
mod server;

use serde::{Deserialize, Serialize};

use crate::limits::Rates;

pub use client::{ControlError, send};
pub use server::ControlServer;

/// What a daemon can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Subcommand)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Command {
    /// Tell what is served
    Stats,
    /// Take up the image's new size and tell the guest; a disk can only grow
    Resize,
    /// Set the disk's rate limits; what is not named has no limit
    Limit(Rates),
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It was done; this is the disk now.
    Ok(Stats),
    /// It was not done, and why.
    Error(String),
}

/// A disk as it is served now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Capacity in bytes.
    pub capacity: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Number of queues offered.
    pub queues: usize,
    /// Whether the guest's write cache is on.
    pub write_cache: bool,
    /// The rate limits.
    pub limits: Rates,
}

/// What carries commands out.
pub trait Controlled: Send + Sync + 'static {
    /// The disk as it is served now.
    fn stats(&self) -> Stats;

    /// Sets the rate limits.
    fn limit(&self, rates: Rates);

    /// Takes up the medium's new size.
    ///
    /// # Errors
    /// One sentence for whoever asked.
    fn resize(&self) -> Result<(), crate::device::ResizeError>;
}

/// Carries out one line.
fn answer(device: &dyn Controlled, line: &str) -> Answer {
    let command = match serde_json::from_str::<Command>(line) {
        Ok(command) => command,
        Err(error) => return Answer::Error(format!("not a command: {error}")),
    };
    let done = match command {
        Command::Stats => Ok(()),
        Command::Resize => device.resize(),
        Command::Limit(rates) => {
            device.limit(rates);
            Ok(())
        }
    };
    match done {
        Ok(()) => Answer::Ok(device.stats()),
        Err(error) => Answer::Error(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Fixed;

    impl Controlled for Fixed {
        fn stats(&self) -> Stats {
            Stats {
                capacity: 512,
                read_only: true,
                queues: 1,
                write_cache: false,
                limits: Rates::default(),
            }
        }

        fn limit(&self, _rates: Rates) {}

        fn resize(&self) -> Result<(), crate::device::ResizeError> {
            Ok(())
        }
    }

    #[test]
    fn commands_read_as_documented() {
        for line in [
            r#"{"command":"stats"}"#,
            r#" {"command": "resize"} "#,
            r#"{"command":"limit","iops":1000}"#,
            r#"{"command":"limit"}"#,
        ] {
            assert_eq!(answer(&Fixed, line), Answer::Ok(Fixed.stats()));
        }
        let text = serde_json::to_string(&answer(&Fixed, r#"{"command":"stats"}"#)).unwrap();
        assert!(text.starts_with(r#"{"ok":{"capacity":512,"#), "{text}");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered(line in ".{0,200}") {
            let _ = answer(&Fixed, &line);
        }
    }
}
