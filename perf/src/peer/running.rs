//! A daemon that listens.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lab::process::{Daemon, Error as ProcessError};

use crate::measure::Processes;

const SOON: Duration = Duration::from_secs(10);

/// A daemon and its socket. One that was started here ends with the value.
#[derive(Debug)]
pub struct RunningDaemon {
    socket: PathBuf,
    pid: u32,
    command: String,
    _process: Option<Daemon>,
}

/// A daemon cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It does not start or listen.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It is not there.
    #[error("process {pid} of the socket {} cannot be read", socket.display())]
    Gone {
        /// The process.
        pid: u32,
        /// The socket.
        socket: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl RunningDaemon {
    /// Starts a program that listens on `socket`.
    ///
    /// # Errors
    /// When it cannot be started or does not listen soon.
    pub fn start(program: &Path, arguments: &[String], socket: &Path) -> Result<Self, StartError> {
        let builder = Daemon::builder(program).args(arguments);
        let process = builder.spawn_listening(socket, SOON)?;
        Ok(Self {
            socket: socket.to_owned(),
            pid: process.pid(),
            command: format!("{} {}", program.display(), arguments.join(" ")),
            _process: Some(process),
        })
    }

    /// Takes a daemon that somebody else started, and will end.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn adopt(socket: &Path, pid: u32) -> Result<Self, StartError> {
        let gone = |source| StartError::Gone {
            pid,
            socket: socket.to_owned(),
            source,
        };
        Processes::of(pid).cost().map_err(gone)?;
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).map_err(gone)?;
        let command = String::from_utf8_lossy(&words).replace('\0', " ");
        Ok(Self {
            socket: socket.to_owned(),
            pid,
            command: command.trim().to_owned(),
            _process: None,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The command that started it.
    #[must_use]
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Its processes as they are now.
    #[must_use]
    pub fn processes(&self) -> Processes {
        Processes::of(self.pid)
    }
}

/// The first line that a program prints about its version.
#[must_use]
pub fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}
