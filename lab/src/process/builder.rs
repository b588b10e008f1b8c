//! How a daemon is started.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::transcript::Transcript;
use super::{Daemon, Error};
use crate::sys::spawn;

/// How a daemon is started.
#[derive(Debug)]
pub struct DaemonBuilder {
    pub(super) command: Command,
    pub(super) program: PathBuf,
    pub(super) inherited: Vec<OwnedFd>,
    pub(super) bound: bool,
    pub(super) clocks_ahead: u32,
}

impl DaemonBuilder {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Lets the daemon have a descriptor under its present number, which the caller puts into
    /// an argument.
    #[must_use]
    pub fn keep(mut self, fd: OwnedFd) -> Self {
        self.inherited.push(fd);
        self
    }

    /// Lets the kernel kill the daemon when the thread that starts it ends, however it does.
    #[must_use]
    pub fn bound(mut self) -> Self {
        self.bound = true;
        self
    }

    /// Starts the daemon in a time namespace of its own, whose monotonic and boot-time clocks are so many seconds
    /// ahead. Needs the rights of root.
    #[must_use]
    pub fn clocks_ahead(mut self, seconds: u32) -> Self {
        self.clocks_ahead = seconds;
        self
    }

    /// Hands a descriptor to the daemon under its present number, which is added to `option`:
    /// `inherit("--fd", socket)` gives `--fd=7`.
    #[must_use]
    pub fn inherit(mut self, option: &str, fd: OwnedFd) -> Self {
        let number: RawFd = fd.as_raw_fd();
        self.command.arg(format!("{option}={number}"));
        self.keep(fd)
    }

    /// Starts the daemon in a process group of its own, with its output captured.
    ///
    /// # Errors
    /// When the program does not exist or cannot be run.
    pub fn spawn(mut self) -> Result<Daemon, Error> {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.command.process_group(0);
        spawn::inherit(&mut self.command, &self.inherited);
        if self.bound {
            spawn::bind(&mut self.command);
        }
        if self.clocks_ahead > 0 {
            spawn::set_clocks_ahead(&mut self.command, self.clocks_ahead);
        }
        let name = self
            .program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let start = |source| Error::Start {
            program: self.program.clone(),
            source,
        };
        let mut child = self.command.spawn().map_err(start)?;
        let stdout = Transcript::of(child.stdout.take());
        let stderr = Transcript::of(child.stderr.take());
        Ok(Daemon {
            child,
            name,
            stdout,
            stderr,
        })
    }

    /// Starts the daemon and waits until `socket` listens.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not listen within `timeout`.
    pub fn spawn_listening(self, socket: &Path, timeout: Duration) -> Result<Daemon, Error> {
        let mut daemon = self.spawn()?;
        daemon.wait_listening(socket, timeout)?;
        Ok(daemon)
    }
}
