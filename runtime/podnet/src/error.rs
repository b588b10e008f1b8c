//! What can be wrong with a pod's network.

use std::io;
use std::path::PathBuf;

/// Why a pod's network cannot be read, wired or unwired.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace's file.
    #[error("cannot open network namespace {path}: has the pod's sandbox been made?")]
    Open {
        /// Its path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that is something else.
    #[error("{0} is no network namespace")]
    NotANamespace(PathBuf),
    /// The host's own.
    #[error(
        "network namespace {0} is the host's own: a guest cannot share it; run the pod without \
         hostNetwork, or with another runtime class"
    )]
    HostNetwork(PathBuf),
    /// The namespace cannot be entered, or no thread can be had for it.
    #[error("cannot enter network namespace {path}: that needs CAP_SYS_ADMIN over it")]
    Enter {
        /// Its path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot {what}")]
    Netlink {
        /// What was asked.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// An interface that a guest cannot have.
    #[error("the guest cannot have interface {interface}: {why}")]
    Unsuitable {
        /// Its name.
        interface: String,
        /// What stands against it.
        why: &'static str,
    },
    /// A route that the guest cannot be told.
    #[error("the guest cannot have the route to {destination}: {why}")]
    Route {
        /// Where it leads.
        destination: String,
        /// What stands against it.
        why: &'static str,
    },
    /// Another pod has it.
    #[error(
        "interface {interface} serves another guest already: tap {tap} is in use; one network \
         namespace is for one pod"
    )]
    InUse {
        /// The pod's interface.
        interface: String,
        /// The tap.
        tap: String,
    },
    /// Somebody else redirects its packets.
    #[error(
        "interface {0} has an ingress qdisc that is not ours ('tc qdisc show dev {0}'): remove it, or \
         the CNI plugin that makes it"
    )]
    Redirected(String),
    /// No tap can be had.
    #[error("cannot make tap {name} (/dev/net/tun; is the kernel's module 'tun' loaded?)")]
    Tap {
        /// Its name.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
}
