//! What outlives the process (`--state-dir`): a guest whose daemon was killed goes on with the next one.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `virtiofsd.nodes` | the session ([`session`]), then the nodes that the guest knows and the files it has open ([`ledger`]) |
//! | `virtiofsd.journal` | what became of requests that must not happen twice ([`journal`]) |
//! | `virtiofsd.in-flight` | which requests the guest waits for ([`vhost_daemon::queue::InFlightFile`]) |

mod journal;
mod ledger;
mod session;
mod stream;
mod units;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use vhost_daemon::boot_id::BootId;
use vhost_daemon::file_lock::open_locked;
use vhost_daemon::queue::{InFlightFile, LogError};

pub use journal::{Entry, Evidence, Journal, Journals, Recalled};
pub(crate) use ledger::{Ledger, NodeRecord, OpenRecord, Saved, SavedNode, SavedOpen};
pub(crate) use session::{RootIdentity, Session};
pub(crate) use stream::Moved;

const FILES: [&str; 3] = [
    "virtiofsd.nodes",
    "virtiofsd.journal",
    "virtiofsd.in-flight",
];

/// The state directory cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// Another daemon has it.
    #[error("{0}, for --state-dir, is in use by another process")]
    InUse(PathBuf),
    /// Making, locking or mapping a file failed.
    #[error("cannot use {path}, for --state-dir")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Of requests in flight.
    #[error("--state-dir cannot be used")]
    InFlight(#[from] LogError),
    /// The guest has mounted with features that the options do not give now.
    #[error(
        "the guest of --state-dir {path} goes on with features {missing:#x}, which these options do \
         not give: start with the same options as before, or remove the directory's files"
    )]
    Features {
        /// The directory.
        path: PathBuf,
        /// FUSE's bits of them.
        missing: u64,
    },
}

/// The files of a state directory, locked.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    pub(crate) session: Session,
    pub(crate) ledger: Arc<Ledger>,
    journals: Arc<Journals>,
    in_flight: InFlightFile,
    lock: File,
}

impl State {
    /// Opens or makes the files in `directory`, for a device with so many queues of at most `queue_size`.
    /// Waits for a process that is about to be gone.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn open(directory: &Path, queues: usize, queue_size: u16) -> Result<Self, StateError> {
        let boot = BootId::current();
        let [nodes, journal, in_flight] = FILES.map(|name| directory.join(name));
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source: io::Error| match source.kind() {
                io::ErrorKind::WouldBlock => StateError::InUse(path),
                _ => StateError::File { path, source },
            }
        };
        let lock = open_locked(&nodes).map_err(failed(&nodes))?;
        let file = lock.try_clone().map_err(failed(&nodes))?;
        let session = Session::open(&file, boot).map_err(failed(&nodes))?;
        let journals = open_locked(&journal)
            .and_then(|file| Journals::open(&file, queues))
            .map_err(failed(&journal))?;
        let ledger = Ledger::open(file).map_err(failed(&nodes))?;
        if ledger.is_cut() {
            // As without room when a node was to be remembered: the guest's files are not all known.
            session.end();
        }
        Ok(Self {
            path: directory.to_owned(),
            session,
            ledger,
            journals,
            in_flight: InFlightFile::open(&in_flight, boot, queues, queue_size)?,
            lock,
        })
    }

    /// What was remembered of the directory with this identity; nothing, if it was another one or another boot
    /// of the host, which no guest outlives.
    pub(crate) fn saved(&self, root: &RootIdentity) -> Saved {
        let mut saved = self.ledger.load();
        let left = self.session.features().is_some();
        let same_boot = self.session.is_of_this_boot();
        if same_boot && self.session.is_of(root) && left {
            return saved;
        }
        if left && !same_boot {
            tracing::info!(
                directory = %self.path.display(),
                "--state-dir is of a former boot of the host: it is started anew"
            );
        } else if left {
            tracing::warn!(
                directory = %self.path.display(),
                "--state-dir is about another directory than the one shared: it is started anew"
            );
        }
        self.session.begin_anew(root);
        self.journals.clear();
        // Their places are free with this.
        saved.nodes.clear();
        saved.open.clear();
        saved
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What became of the requests of queue `index`.
    pub fn journal(&self, index: usize) -> Journal {
        self.journals.queue(index)
    }

    /// What the next process waits for: held open until nothing of this one happens any more.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Which requests are in flight.
    pub fn in_flight(&self) -> &InFlightFile {
        &self.in_flight
    }

    /// A guest's kernel starts afresh: nothing of before matters.
    pub(crate) fn forget_session(&self) {
        self.session.end();
        self.journals.clear();
    }
}
