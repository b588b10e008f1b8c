use std::io;
use std::path::PathBuf;

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
    /// The host lacks something.
    #[error(transparent)]
    Missing(#[from] lab::need::Missing),
    /// The guests' kernel.
    #[error(transparent)]
    Image(#[from] guest_image::Error),
    /// containerd.
    #[error(transparent)]
    Daemon(#[from] lab::process::Error),
    /// Our own front end, where queues are counted.
    #[error(transparent)]
    FrontEnd(#[from] lab::frontend::Error),
    /// A file of the run's.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// A program that cannot be run.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A program that failed.
    #[error("{program} failed: {said}")]
    Tool {
        /// The program.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// A container that says nothing.
    #[error("the container {id} said nothing in {seconds} s; ctr said: {said}")]
    Silent {
        /// The container.
        id: String,
        /// How long it had.
        seconds: u64,
        /// What ctr said.
        said: String,
    },
    /// What asks the agent.
    #[error("cannot start what asks the agent")]
    Runtime(#[source] io::Error),
    /// The agent.
    #[error("the agent does not answer")]
    Agent(#[from] ringside_pod::PodError),
    /// A pod without a shim.
    #[error("no shim of the container {0} is there")]
    NoShim(String),
    /// What a process holds cannot be read.
    #[error("cannot read what the process {pid} uses")]
    Measure {
        /// The process.
        pid: u32,
        /// The system's reason.
        source: io::Error,
    },
}
