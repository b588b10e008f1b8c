//! `DAEMON ctl SOCKET COMMAND`.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::Answer;

/// A command was not carried out.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody answers there.
    #[error("cannot talk to the daemon at {socket}")]
    Talk {
        /// The control socket.
        socket: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The daemon's own words.
    #[error("the daemon refuses: {0}")]
    Refused(String),
}

/// Sends a command and waits for its answer.
///
/// # Errors
/// See [`ControlError`].
pub fn send<R: DeserializeOwned>(
    socket: &Path,
    command: &impl Serialize,
) -> Result<R, ControlError> {
    follow(socket, command).map(|(report, _)| report)
}

/// The same for a command whose answer is followed by more: what comes behind the answer, until the
/// daemon ends it.
///
/// # Errors
/// See [`ControlError`].
pub fn follow<R: DeserializeOwned>(
    socket: &Path,
    command: &impl Serialize,
) -> Result<(R, BufReader<UnixStream>), ControlError> {
    let (answer, rest) = exchange(socket, command).map_err(|source| ControlError::Talk {
        socket: socket.to_owned(),
        source,
    })?;
    match answer {
        Answer::Ok(report) => Ok((report, rest)),
        Answer::Error(why) => Err(ControlError::Refused(why)),
    }
}

fn exchange<R: DeserializeOwned>(
    socket: &Path,
    command: &impl Serialize,
) -> io::Result<(Answer<R>, BufReader<UnixStream>)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut line = serde_json::to_string(command)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream);
    reader.read_line(&mut answer)?;
    reader.get_ref().set_read_timeout(None)?;
    Ok((serde_json::from_str(&answer)?, reader))
}
