//! The host's files in the machine: one virtiofsd for each directory.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use ringside::programs;

use super::Error;
use crate::process::Daemon;

/// The tag of the host's `/`.
pub(super) const ROOT: &str = "hostroot";

/// A directory that a daemon serves.
pub(super) struct Share {
    pub(super) tag: String,
    /// Where it is mounted; nothing for the root.
    pub(super) path: Option<PathBuf>,
    /// The front end's end of the connection.
    pub(super) front_end: OwnedFd,
    pub(super) daemon: Daemon,
}

/// Serves the host's root read-only, and `directories` for reading and writing.
pub(super) fn start(directories: &[PathBuf]) -> Result<Vec<Share>, Error> {
    // Nobody else changes what the machine sees of the root in a way that matters to it.
    let root = serve(
        Path::new("/"),
        &["--readonly", "--cache=always"],
        ROOT,
        None,
    );
    let shared = directories
        .iter()
        .enumerate()
        .map(|(index, path)| serve(path, &["--cache=auto"], &format!("dir{index}"), Some(path)));
    std::iter::once(root).chain(shared).collect()
}

/// The daemon gets its end of a connected pair: no socket has a name that could stay behind.
fn serve(
    shared: &Path,
    options: &[&str],
    tag: &str,
    path: Option<&PathBuf>,
) -> Result<Share, Error> {
    let pair = UnixStream::pair().map_err(Error::io("make a socket pair for virtiofsd"))?;
    let (front_end, back_end) = (OwnedFd::from(pair.0), OwnedFd::from(pair.1));
    let daemon = Daemon::builder(programs::VIRTIOFSD.find()?)
        .arg("--shared-dir")
        .arg(shared)
        .args(["--tag", tag, "--log-level=warn"])
        .args(options)
        .inherit("--fd", back_end)
        .bound()
        .spawn()?;
    Ok(Share {
        tag: tag.to_owned(),
        path: path.cloned(),
        front_end,
        daemon,
    })
}
