//! `vhost-user-blk ctl SOCKET COMMAND`.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::{Answer, Command, DiskStats};

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

/// Sends a command and waits for its answer: the disks it was about, as they are now.
///
/// # Errors
/// See [`ControlError`].
pub fn send(socket: &Path, command: &Command) -> Result<Vec<DiskStats>, ControlError> {
    let answer = exchange(socket, command).map_err(|source| ControlError::Talk {
        socket: socket.to_owned(),
        source,
    })?;
    match answer {
        Answer::Ok(disks) => Ok(disks),
        Answer::Error(why) => Err(ControlError::Refused(why)),
    }
}

fn exchange(socket: &Path, command: &Command) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut line = serde_json::to_string(command)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}
