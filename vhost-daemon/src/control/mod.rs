//! Commands to a running daemon: one JSON object a line, answered by one.
//!
//! ```text
//! → {"command":"stats"}
//! ← {"ok":[{"disk":"root","source":"/images/root.img","capacity":1073741824, ...}]}
//! → {"command":"resize","disk":"root"}
//! ← {"error":"the image has shrunk to 512 bytes; a disk can only grow"}
//! ```
//!
//! What commands there are is the daemon's own business: see [`Controlled`].

mod client;
mod server;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use client::{ControlError, follow, send};
pub use server::ControlServer;

/// What carries commands out.
pub trait Controlled: Send + Sync + 'static {
    /// What can be asked for.
    type Command: DeserializeOwned;
    /// What whoever asked is told.
    type Report: Serialize;
    /// Why a command was not carried out: one sentence for whoever asked, with its causes.
    type Refusal: std::error::Error;

    /// Does what is asked.
    ///
    /// # Errors
    /// When it cannot be done.
    fn carry_out(
        self: &Arc<Self>,
        command: Self::Command,
    ) -> Result<Done<Self::Report>, Self::Refusal>;
}

/// What talks to a client behind the answer; the connection ends with it.
pub type Follow = Box<dyn FnOnce(&UnixStream) -> io::Result<()> + Send>;

/// A command was carried out.
pub struct Done<R> {
    /// What to tell.
    pub report: R,
    /// What comes behind the answer, if anything.
    pub follow: Option<Follow>,
}

impl<R> From<R> for Done<R> {
    fn from(report: R) -> Self {
        Self {
            report,
            follow: None,
        }
    }
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer<R> {
    /// It was done.
    Ok(R),
    /// It was not done, and why.
    Error(String),
}

/// Carries out one line.
pub fn answer<C: Controlled>(
    controlled: &Arc<C>,
    line: &str,
) -> (Answer<C::Report>, Option<Follow>) {
    let command = match serde_json::from_str(line) {
        Ok(command) => command,
        Err(error) => return (Answer::Error(format!("not a command: {error}")), None),
    };
    match controlled.carry_out(command) {
        Ok(Done { report, follow }) => (Answer::Ok(report), follow),
        Err(refusal) => (Answer::Error(crate::daemon::sentence(&refusal)), None),
    }
}
