//! Why a guest did not do its work.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::{need, process};

/// Why a guest did not run to its end, or ended badly. `Debug` prints sentences too, as tests
/// show errors that way.
#[derive(thiserror::Error)]
pub enum Error {
    /// The host lacks something.
    #[error(transparent)]
    Missing(#[from] need::Missing),
    /// No kernel or initramfs could be had.
    #[error("cannot make the guest's kernel and initramfs")]
    Image(#[from] guest_image::Error),
    /// The hypervisor could not be started or waited for.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A file or socket of the guest could not be made.
    #[error("cannot {what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The script did not end in time.
    #[error("{guest}: not {awaited} within {limit:?}\n{evidence}")]
    TimedOut {
        /// Which guest.
        guest: &'static str,
        /// What it should have done.
        awaited: String,
        /// The guest's time limit.
        limit: Duration,
        /// The ends of output and console.
        evidence: String,
    },
    /// The guest ended without telling the script's exit code.
    #[error("{guest} ended before it was {awaited}\n{evidence}")]
    Died {
        /// Which guest.
        guest: &'static str,
        /// What it should have done.
        awaited: String,
        /// The ends of output and console.
        evidence: String,
    },
    /// The script ended with another exit code than zero.
    #[error("the guest's script ended with exit code {code}\n{evidence}")]
    Failed {
        /// The exit code.
        code: i32,
        /// The ends of output and console.
        evidence: String,
    },
}

impl Error {
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
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

/// Lines that a kernel's panic has, with its registers and stack.
pub(crate) const CONSOLE_LINES: usize = 50;

/// The ends of what the script and the kernel said.
pub(crate) fn evidence(output: &str, console: &str) -> String {
    let tail = |text: &str, lines: usize| {
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    };
    format!(
        "--- output ---\n{}\n--- console ---\n{}",
        tail(output, 20),
        tail(console, CONSOLE_LINES)
    )
}
