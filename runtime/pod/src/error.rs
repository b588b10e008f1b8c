//! What can go wrong with a pod.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::programs::ProgramError;
use crate::spec::SpecError;

/// Why something of a pod could not be done.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// A file or directory.
    #[error("cannot {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A name that cannot be a file's.
    #[error("{0:?} names no pod or container: letters, digits, '.', '_' and '-', not '.' first")]
    Name(String),
    /// A pod that somebody else has.
    #[error("pod {name} is there already: it belongs to process {owner}, which runs")]
    Owned {
        /// The pod.
        name: String,
        /// Whose it is.
        owner: u32,
    },
    /// A serial that no disk can have.
    #[error("{0:?} is no disk's serial: 1 to 20 letters, digits, '-' and '_'")]
    Serial(String),
    /// A path that no unix socket can have.
    #[error(
        "{path} is {length} bytes long, a socket's path has at most 107; use a shorter directory"
    )]
    LongSocket {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// A program that is nowhere.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// No kernel or initramfs.
    #[error("cannot get the guest's kernel and initramfs")]
    Image(#[from] guest_image::Error),
    /// A configured kernel without an initramfs, whose modules cannot be found.
    #[error(
        "machine.kernel is {0}, which is not called ROOT/boot/vmlinuz-VERSION, so its modules cannot be found: set machine.initramfs, too"
    )]
    Kernel(PathBuf),
    /// A disk that does not come or go.
    #[error("{what} failed: {reason}")]
    Plug {
        /// What was tried.
        what: &'static str,
        /// The hypervisor's words.
        reason: String,
    },
    /// More disks than a machine has room for.
    #[error("a pod has at most {0} disks of its containers at once")]
    Disks(usize),
    /// A part that cannot be started.
    #[error("cannot start {part}")]
    Start {
        /// The part.
        part: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A part that ended before the pod did.
    #[error("{part} ended ({status}); the last it said: {log}")]
    PartEnded {
        /// The part.
        part: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// A machine that ended before the pod did.
    #[error(
        "the guest died: {part} ended ({status}); the last it said: {log}\nthe last lines of the guest's console: {console}"
    )]
    GuestDied {
        /// The hypervisor.
        part: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
        /// The last lines of the guest's console.
        console: String,
    },
    /// A part that does not listen.
    #[error("nothing serves {path} after {seconds} seconds")]
    NotServed {
        /// Its socket.
        path: PathBuf,
        /// How long it had.
        seconds: u64,
    },
    /// A guest without an agent.
    #[error("the guest's agent did not answer in {seconds} seconds; its console: {console}")]
    NoAgent {
        /// How long it had.
        seconds: u64,
        /// The last lines of the console.
        console: String,
    },
    /// The agent refused, or could not.
    #[error("the guest's agent: {}", agent_message(.0))]
    Agent(ttrpc::Error),
    /// A stream that could not be connected.
    #[error("cannot connect a standard stream to the guest")]
    Stream(#[source] io::Error),
    /// A network that a guest cannot be given.
    #[error("cannot give the guest the pod's network")]
    Network(#[from] ringside_podnet::Error),
    /// A specification that no guest can have.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A hook that failed.
    #[error("the {kind} hook {path} failed: {reason}")]
    Hook {
        /// Which.
        kind: &'static str,
        /// Its program.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// The machine is gone.
    #[error("the pod has ended: {0}")]
    Ended(String),
}

impl PodError {
    /// For `map_err`: what was tried with which file.
    pub fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}

fn agent_message(error: &ttrpc::Error) -> String {
    match error {
        ttrpc::Error::RpcStatus(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// An error with its sources, in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
