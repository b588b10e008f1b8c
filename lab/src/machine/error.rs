//! Why a command could not be run in a machine.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use ringside::programs::ProgramError;

use crate::{need, process};

/// Why a command was not run to its end. `Debug` prints sentences too, as tests show errors that
/// way. `evidence` is the ends of output and console.
#[derive(thiserror::Error)]
pub enum Error {
    /// The host lacks something.
    #[error(transparent)]
    Missing(#[from] need::Missing),
    /// A program of ours is nowhere.
    #[error("{0}; `make agent` builds the lab's init, `cargo build -p virtiofsd` the daemon")]
    Program(#[from] ProgramError),
    /// There is nothing to run.
    #[error("no command for the lab's machine was given")]
    NoCommand,
    /// A directory to share is none.
    #[error("cannot share {} with the lab's machine: it is no directory", .0.display())]
    NoDirectory(PathBuf),
    /// No kernel or initramfs could be had.
    #[error("cannot make the kernel and initramfs of the lab's machine")]
    Image(#[from] guest_image::Error),
    /// QEMU or virtiofsd could not be started or watched.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A file or socket of the machine could not be made.
    #[error("cannot {what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The machine's kernel panicked.
    #[error("the kernel of the lab's machine panicked: {reason}{evidence}")]
    Panicked {
        /// The kernel's words.
        reason: String,
        /// Ends of output and console.
        evidence: String,
    },
    /// QEMU ended well, and that too early.
    #[error("the lab's machine was reset or switched off before its command ended{evidence}")]
    SwitchedOff {
        /// Ends of output and console.
        evidence: String,
    },
    /// QEMU ended before the command did.
    #[error("the lab's machine died: QEMU ended with {status}{said}{evidence}")]
    HypervisorDied {
        /// How QEMU ended.
        status: ExitStatus,
        /// What it said.
        said: String,
        /// Ends of output and console.
        evidence: String,
    },
    /// A file daemon ended while the machine ran.
    #[error("the lab's machine lost its files: {serving} ended with {status}{said}{evidence}")]
    DaemonDied {
        /// Which one.
        serving: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
        /// Ends of output and console.
        evidence: String,
    },
    /// The time limit passed.
    #[error("the lab's machine was {stage} when its time limit of {limit:?} passed{evidence}")]
    TimedOut {
        /// How far it had come.
        stage: &'static str,
        /// The limit.
        limit: Duration,
        /// Ends of output and console.
        evidence: String,
    },
    /// A signal or a stopper ended the machine.
    #[error("the lab's machine was stopped by signal {0}")]
    Stopped(i32),
    /// The machine's first process could not run the command.
    #[error("{message}{evidence}")]
    NotRun {
        /// Its own words.
        message: String,
        /// 127 for a command that is not there, 126 for one that cannot be run, else 125.
        code: u8,
        /// Ends of output and console.
        evidence: String,
    },
    /// The host's own KVM was asked for and is no good.
    #[error("cannot run the command here: {0}; without --here the lab has a KVM of its own")]
    NoKvmHere(String),
    /// The command on the host was not done in time.
    #[error("the command was still running when its time limit of {0:?} passed")]
    TooSlowHere(Duration),
    /// The machine's first process and this library are not of one build.
    #[error("the lab's init said something that is no message")]
    Garbled(#[source] io::Error),
    /// The command ended with another exit code than zero.
    #[error("the command ended with exit code {code}\n{evidence}")]
    Failed {
        /// The exit code.
        code: u8,
        /// Ends of output and console.
        evidence: String,
    },
}

impl Error {
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// A standard stream of this process, or its signals, cannot be had.
    #[must_use]
    pub fn stream(source: io::Error) -> Self {
        Self::Io {
            what: "use this process's streams and signals",
            source,
        }
    }

    /// Adds what was said to an error that has none yet.
    pub(super) fn with_evidence(mut self, text: String) -> Self {
        match &mut self {
            Self::Panicked { evidence, .. }
            | Self::SwitchedOff { evidence }
            | Self::HypervisorDied { evidence, .. }
            | Self::DaemonDied { evidence, .. }
            | Self::TimedOut { evidence, .. }
            | Self::NotRun { evidence, .. } => *evidence = format!("\n{text}"),
            _ => {}
        }
        self
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
