use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::interrupt::Interrupted;
use crate::scenario::Nothing;

/// Why a run, or a turn of it, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The options leave nothing to measure.
    #[error(transparent)]
    Nothing(#[from] Nothing),
    /// No kernel or no initramfs.
    #[error(transparent)]
    Image(#[from] guest_image::Error),
    /// No scratch directory.
    #[error(transparent)]
    Scratch(io::Error),
    /// A file of the guest's.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// A daemon.
    #[error(transparent)]
    Daemon(#[from] lab::process::Error),
    /// /dev/kvm is missing or slow.
    #[error("guests need native KVM: {0}; try `ringside-lab run -- ringside-perf boot`")]
    NoKvm(String),
    /// `--slim`.
    #[error("there is no slim kernel in the cache: run `make guest-kernel`")]
    NoSlim,
    /// `--rounds 0`, say.
    #[error("--memory {0} MiB: 128 to 4096 tell the guest's memory from the VMM's own")]
    Memory(u32),
    /// The VMM cannot be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It ended.
    #[error("it ended before its guest came to the mark; it said: {0}")]
    Ended(String),
    /// It takes too long.
    #[error("its guest did not come to the mark in {limit:?}; it said: {said}")]
    TooSlow {
        /// How long it had.
        limit: Duration,
        /// What it said.
        said: String,
    },
    /// The kernel does not tell.
    #[error("cannot measure the process")]
    Measure(#[source] io::Error),
}
