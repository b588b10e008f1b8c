//! What cannot be had, and what to do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A daemon cannot be closed in as asked.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The directory to see cannot be opened.
    #[error("cannot open the shared directory {path}")]
    Directory {
        /// As given.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// /proc is not mounted, or hides the process from itself.
    #[error("cannot open /proc/self/fd, which re-opening files needs")]
    Descriptors(#[source] io::Error),
    /// chroot(2) is the superuser's.
    #[error("--sandbox chroot needs root: give --sandbox namespace, or none")]
    ChrootNeedsRoot,
    /// Maps belong to a user namespace.
    #[error("--uid-map and --gid-map are for an ordinary user with --sandbox namespace")]
    MapsWithoutNamespace,
    /// An ordinary user may not make user namespaces.
    #[error(
        "a user namespace cannot be made: allow it (sysctl user.max_user_namespaces, \
         kernel.unprivileged_userns_clone), run as root, or give --sandbox none"
    )]
    UserNamespace(#[source] io::Error),
    /// The ids cannot be mapped without a helper.
    #[error(
        "{program} cannot be run, which maps of other ids than one's own need: install Debian's \
         package uidmap"
    )]
    NoHelper {
        /// newuidmap(1) or newgidmap(1).
        program: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The helper refused.
    #[error("the ids cannot be mapped (see subuid(5), subgid(5)): {said}")]
    Helper {
        /// By which program, and what it said.
        said: String,
    },
    /// The map of one's own id was refused.
    #[error("the ids of the user namespace cannot be mapped")]
    Map(#[source] io::Error),
    /// A step on the way failed.
    #[error(
        "--sandbox {mode} cannot {step}; in a container that has namespaces of its own give \
         --sandbox chroot, else --sandbox none"
    )]
    Step {
        /// What was asked for.
        mode: &'static str,
        /// What was tried.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// unshare(2), of a daemon that stays one process.
    #[error(
        "--sandbox namespace cannot make network and IPC namespaces: run as root or allow user \
         namespaces; in a container that has namespaces of its own give --sandbox none"
    )]
    Network(#[source] io::Error),
    /// landlock(7).
    #[error("access to files cannot be restricted; --sandbox none does without")]
    Landlock(#[source] landlock::RulesetError),
    /// The process has more than one thread.
    #[error("the sandbox must be entered while there is one thread, not {0}")]
    Threads(usize),
    /// fork(2), or what goes with it.
    #[error("the process cannot be split")]
    Split(#[source] io::Error),
    /// A capability that was asked for is not there.
    #[error("--modcaps: this process has no {0} to keep; start it with that, as root")]
    NoCapability(String),
    /// Capabilities cannot be given up.
    #[error("capabilities cannot be given up")]
    Capabilities(#[source] io::Error),
    /// prctl(2).
    #[error("the process' memory cannot be kept from core files and tracing")]
    Dumpable(#[source] io::Error),
}
